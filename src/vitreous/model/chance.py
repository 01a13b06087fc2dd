"""Dropout and its relatives, from a stream that threads don't share.

PyTorch's own stream belongs to the whole process: where several threads draw from it at once, who
gets which number is up to the scheduler. A thread can therefore name a generator of its own. And
where several processes have a part of a batch each, all draw for the whole batch, so that a picture
gets the same numbers wherever it is.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_thread = threading.local()


@dataclass(frozen=True)
class Draws:
    """Where a thread's random numbers come from.

    Args:
        generator: a CPU one; ``None`` for PyTorch's own stream.
        batch: pictures that numbers are drawn for; ``None`` for those at hand.
        first: place of the first picture at hand among those.
    """

    generator: torch.Generator | None = None
    batch: int | None = None
    first: int = 0

    def like(self, x: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        """Random numbers of the shape of `x`, whose first axis is that of the pictures.

        Args:
            x: lies in memory as the numbers will; its values don't matter.
            draw: makes numbers of the shape, type and place in memory of what it is given.
        """
        if self.batch is None:
            return draw(x)
        # As it would be of the whole batch: draws follow the order of elements in memory.
        inner = torch.empty_like(x).stride()[1:]
        strides = (x.numel() // max(len(x), 1), *inner)
        size = (self.batch, *x.shape[1:])
        whole = torch.empty_strided(size, strides, dtype=x.dtype, device=x.device)
        mine = draw(whole)[self.first : self.first + len(x)]
        return mine if len(x) == self.batch else mine.clone()  # a view would keep all of them


@contextmanager
def drawing_from(draws: Draws) -> Iterator[None]:
    """Let this thread's draws come from there."""
    before = current_draws()
    _thread.draws = draws
    try:
        yield
    finally:
        _thread.draws = before


def current_draws() -> Draws | None:
    """Where this thread draws from; ``None`` for PyTorch's own stream, for the pictures at hand."""
    return getattr(_thread, "draws", None)


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
    if (draws := current_draws()) is None:
        return nullcontext(), nullcontext()  # PyTorch sees to its own stream
    if draws.generator is None:
        # On a GPU the way back has threads of its own.
        return nullcontext(), drawing_from(draws)
    again = torch.Generator()
    again.set_state(draws.generator.get_state())
    return nullcontext(), drawing_from(Draws(again, draws.batch, draws.first))


def dropout(x: Tensor, rate: float) -> Tensor:
    """Set values to zero at random and scale the others up (Srivastava et al. 2014, section 10)."""
    if rate == 0.0:
        return x
    if (draws := current_draws()) is None:
        return F.dropout(x, rate)
    if (generator := draws.generator) is None:
        return x * draws.like(x, lambda like: F.dropout(torch.ones_like(like), rate))
    keep = 1.0 - rate
    return x * draws.like(
        x, lambda like: torch.empty_like(like).bernoulli_(keep, generator=generator).div_(keep)
    )


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
        keep, draws = 1.0 - self.rate, current_draws() or Draws()
        mask = torch.empty((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x * draws.like(
            mask,
            lambda like: (
                torch.empty_like(like).bernoulli_(keep, generator=draws.generator).div_(keep)
            ),
        )


def random_order(pictures: int, count: int, device: torch.device) -> Tensor:
    """For each picture the numbers below `count`, in a random order.

    Shape:
        -> (pictures, count) int64
    """
    draws = current_draws() or Draws()
    values = draws.like(
        torch.empty((pictures, count), device=device),
        lambda like: torch.rand(like.shape, generator=draws.generator, device=device),
    )
    return values.argsort(1)
