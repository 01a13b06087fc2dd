"""Threads that work side by side, each on something of its own."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class SideBySide:
    """Threads among which PyTorch's own are divided.

    Threads that share every small operation mostly wait for one another; those that have each a
    piece of the work wait once, at its end.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        if count == 1:
            return
        each = max(1, torch.get_num_threads() // count)
        self._pool = ThreadPoolExecutor(count, "side by side", set_own_threads, (each,))
        all_here = Barrier(count)
        with torch_threads(torch.get_num_threads()):  # which new ones change
            list(self._pool.map(lambda _: all_here.wait(), range(count)))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """What the function gives for each item, in their order; its first error is raised."""
        if self.count == 1:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))


def set_own_threads(count: int) -> None:
    """Let PyTorch's operations in this thread, a new one, have so many threads from now on.

    A number that any thread sets is also that of all new ones, which take it over at their first
    operation, even where they have set their own before. So here the first operation comes first.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


class Aside:
    """One piece of work at a time, in a thread of its own, while the caller goes on."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "aside")
        self._pending: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin some work, once what was begun before has ended; its error is raised here."""
        self.wait()
        self._pending = self._pool.submit(work)

    def check(self) -> None:
        """Raise the error of work that has ended in one; what is still at work isn't waited for."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait for what was begun, and raise its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for what was begun; nothing is begun any more."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch's operations have so many threads inside the block, and as many as ever after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
