"""The next step's inputs, made while the present step computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vitreous.core.threads import set_own_threads, torch_threads

#: A step, counted from 0, and the share of the run that lies behind it.
Place = tuple[int, float]
Inputs = tuple[Tensor, ...]


class Ahead:
    """Has inputs made one step ahead, in a thread of its own.

    On a GPU in a stream of its own, too, else they would wait there for the present step's end.

    Args:
        device: where they are made.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:  # pictures may still be on their way to the GPU
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._waiting: tuple[Place, Future[Inputs]] | None = None
        self._pool = ThreadPoolExecutor(1, "ahead", set_own_threads, (1,))
        with torch_threads(torch.get_num_threads()):  # which a new one changes
            self._pool.submit(torch.get_num_threads).result()

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
            inputs = self._make(make, *now)
        self._hand_over(inputs)
        self._waiting = None if then is None else (then, self._pool.submit(self._make, make, *then))
        return inputs

    def _make(self, make: Callable[[int, float], Inputs], step: int, progress: float) -> Inputs:
        with torch.cuda.stream(self._stream):
            return make(step, progress)

    def _hand_over(self, inputs: Inputs) -> None:
        """Let the computing stream wait for the inputs, and their memory last until it is done."""
        if self._stream is None:
            return
        computing = torch.cuda.current_stream(self._stream.device)
        computing.wait_stream(self._stream)
        for tensor in inputs:
            tensor.record_stream(computing)
