"""Dropout and its relatives, from a stream that threads don't share.

PyTorch's own stream belongs to the whole process: where several threads draw from it at once, who
gets which number is up to the scheduler. A thread can therefore name a generator of its own.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_thread = threading.local()


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let this thread's draws come from a generator of its own, a CPU one."""
    before = current_generator()
    _thread.generator = generator
    try:
        yield
    finally:
        _thread.generator = before


def current_generator() -> torch.Generator | None:
    """This thread's generator; ``None`` for PyTorch's own stream."""
    return getattr(_thread, "generator", None)


def recomputed(function: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Apply a function whose inner results are not kept, but computed again on the way back.

    The second time draws the same random numbers (Chen et al. 2016, "Training Deep Nets with
    Sublinear Memory Cost").
    """
    result = checkpoint(function, *inputs, use_reentrant=False, context_fn=_same_draws)
    assert isinstance(result, Tensor)
    return result


def _same_draws() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first and the second computation."""
    if (generator := current_generator()) is None:
        return nullcontext(), nullcontext()  # PyTorch sees to its own stream
    again = torch.Generator()
    again.set_state(generator.get_state())
    return nullcontext(), drawing_from(again)


def dropout(x: Tensor, rate: float) -> Tensor:
    """Set values to zero at random and scale the others up (Srivastava et al. 2014, section 10)."""
    if rate == 0.0:
        return x
    if (generator := current_generator()) is None:
        return F.dropout(x, rate)
    return x * torch.empty_like(x).bernoulli_(1.0 - rate, generator=generator).div_(1.0 - rate)


class Dropout(nn.Module):
    """`dropout` while training.

    Shape:
        any -> the same
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate) if self.training else x


class DropPath(nn.Module):
    """Leaves a residual branch out for some pictures of a batch (Huang et al. 2016).

    The branches that stay are scaled up, so that the expectation is the same as at inference.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x * mask.bernoulli_(keep, generator=current_generator()).div_(keep)
