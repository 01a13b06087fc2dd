"""A training step by several threads, each with a part of the batch.

On a CPU the operations of a small model are so short that threads which share each of them mostly
wait for one another. A thread that has pictures of its own waits once a step. Batch norm then takes
its statistics from a part of the batch ("ghost batch norm", Hoffer et al. 2017, section 4); all
else is the mean over the whole batch, as ever.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Generic

import torch
from torch import Tensor

from vitreous.core.rng import torch_stream
from vitreous.core.threads import SideBySide
from vitreous.model.chance import drawing_from
from vitreous.training.ema import Model

#: Pictures that a part has at least, for batch norm's sake; fewer have not been tried.
MIN_SHARD = 8


def choose_shards(device: torch.device, batch_size: int, compiled: bool = False) -> int:
    """Parts that a batch is best cut into: one for each of a CPU's threads, none too small."""
    if device.type != "cpu" or compiled:
        return 1
    return max(1, min(torch.get_num_threads(), batch_size // MIN_SHARD))


class Shards(Generic[Model]):
    """A model and its copies, which share its weights and take a part of each batch.

    Args:
        model: the one being trained, on a CPU where there is more than one part.
        threads: one for each part.
        accumulate: what the batch is cut into first, for less memory: one piece after the other
            goes to the threads, and their gradients are added up.
    """

    def __init__(self, model: Model, threads: SideBySide, accumulate: int = 1) -> None:
        self._accumulate = accumulate
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._models = [model, *(_copy(model) for _ in range(threads.count - 1))]
        kept = model.state_dict().keys()  # tables that are no statistics are in no file
        self._buffers = [
            [
                buffer
                for name, buffer in one.named_buffers()
                if name in kept and buffer.is_floating_point()
            ]
            for one in self._models
        ]
        self._threads = threads

    def backward(
        self, loss_of: Callable[..., Tensor], inputs: tuple[Tensor, ...], seed: int
    ) -> Tensor:
        """Compute the loss and the gradients of all weights.

        Args:
            loss_of: from a model and inputs, the mean over the pictures.
            inputs: each with the pictures of the batch as its first axis.
            seed: of dropout and its relatives in the parts' threads; a batch in one part draws
                from PyTorch's own stream as it stands.

        Returns:
            The mean loss over the batch, a scalar.
        """
        pieces = zip(*(tensor.tensor_split(self._accumulate) for tensor in inputs), strict=True)
        losses = [
            self._add_gradient(loss_of, piece, len(piece[0]) / len(inputs[0]), (seed, number))
            for number, piece in enumerate(pieces)
        ]
        return torch.stack(losses).sum()

    def _add_gradient(
        self,
        loss_of: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        share: float,
        key: tuple[int, int],
    ) -> Tensor:
        """Add a piece's share of the batch's loss to the gradients, and return it."""
        if len(self._models) == 1:
            loss = loss_of(self._models[0], *inputs) * share
            loss.backward()
            return loss.detach()
        for first, *others in zip(*self._buffers, strict=True):
            for other in others:
                other.copy_(first)
        count, (seed, piece) = len(self._models), key
        parts = [tensor.tensor_split(count) for tensor in inputs]

        def work(number: int) -> list[Tensor | None]:
            part = [tensors[number] for tensors in parts]
            with drawing_from(torch_stream(seed, "shard", piece * count + number)):
                loss = loss_of(self._models[number], *part)
                loss = loss * (share * len(part[0]) / len(inputs[0]))
            gradients = torch.autograd.grad(loss, self._weights, allow_unused=True)
            return [loss.detach(), *gradients]

        results = self._threads.map(work, range(count))
        losses, *gradients = zip(*results, strict=True)
        for weight, shares in zip(self._weights, gradients, strict=True):
            weight.grad = _gradient(weight, (weight.grad, *shares) if piece else shares)
        for same in zip(*self._buffers, strict=True):
            same[0].copy_(torch.stack(same).mean(0))
        return torch.stack(losses).sum()


def _copy(model: Model) -> Model:
    """A copy with the very same weights, but statistics of its own."""
    shared: dict[int, object] = {id(weight): weight for weight in model.parameters()}
    return copy.deepcopy(model, shared)


def _gradient(weight: Tensor, shares: Sequence[Tensor | None]) -> Tensor | None:
    """The sum, in the order given; ``None`` where the weight wasn't used.

    It lies in memory as the weight does, which a share need not: PyTorch's fused AdamW pairs the
    elements of weight and gradient by their place in memory.
    """
    used = [share for share in shares if share is not None]
    if not used:
        return None
    total = torch.zeros_like(weight)
    for share in used:
        total.add_(share)
    return total
