"""The next step's inputs, made while the present step computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

#: A step, counted from 0, and the share of the run that lies behind it.
Place = tuple[int, float]
Inputs = tuple[Tensor, ...]


class Ahead:
    """Has inputs made one step ahead, in a thread of its own."""

    def __init__(self) -> None:
        self._waiting: tuple[Place, Future[Inputs]] | None = None
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (1,))
        self._pool.submit(torch.get_num_threads).result()
        # PyTorch gives new threads the number that was set last, by whichever thread.
        torch.set_num_threads(threads)

    def take(self, make: Callable[[int, float], Inputs], now: Place, then: Place | None) -> Inputs:
        """The inputs of one place; those of the next are begun.

        What was begun for another place than is asked for now, because the plan has changed, is
        forgotten.

        Args:
            make: the inputs of a place, from nothing else, so that it doesn't matter when.
            now: whose inputs are returned.
            then: whose will be asked for next; ``None`` behind the last step.
        """
        if self._waiting is not None and self._waiting[0] == now:
            inputs = self._waiting[1].result()
        else:
            inputs = make(*now)
        self._waiting = None if then is None else (then, self._pool.submit(make, *then))
        return inputs
