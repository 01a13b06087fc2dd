"""A training step as one CUDA graph.

The kernels of a small model take less time than Python needs to launch them. A graph is launched
once for all of them (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

#: Steps before the graph is recorded, in which libraries choose kernels and allocate memory.
WARMUP = 3


class Captured:
    """Records what a function does to the GPU in its fourth call, and repeats it from then on.

    Whatever changes from call to call has to lie in the same place on the GPU each time: inputs are
    copied to where the first ones lay, and numbers such as the learning rate have to be tensors.
    Random numbers are drawn anew, from PyTorch's own stream as it stands before the call.

    Args:
        function: from tensors on the GPU to a scalar, the same work each time, without reading a
            result back.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._calls = 0
        self._graph = torch.cuda.CUDAGraph()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Do the function's work, and return its result.

        Args:
            inputs: of the same shapes and types in every call.
        """
        self._calls += 1
        if self._calls <= WARMUP:
            return self._on_side_stream(inputs)
        if self._calls == WARMUP + 1:
            self._record(inputs)
        for place, given in zip(self._inputs, inputs, strict=True):
            place.copy_(given)
        self._graph.replay()
        return self._result.clone()

    def _on_side_stream(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """As it will be recorded, which can't be done on the default stream."""
        stream, default = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(default)
        with torch.cuda.stream(stream):
            result = self._function(*inputs)
        default.wait_stream(stream)
        return result.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        # Another thread prepares the next inputs meanwhile.
        with _no_collection(), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = self._function(*self._inputs)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Inside the block no garbage is collected: an old graph among it would spoil a recording."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
