"""A training step by several threads, each with a part of the batch.

On a CPU the operations of a small model are so short that threads which share each of them mostly
wait for one another. A thread that has pictures of its own waits once a step. Batch norm then takes
its statistics from a part of the batch ("ghost batch norm", Hoffer et al. 2017, section 4); all
else is the mean over the whole batch, as ever.

Where several processes train together, each has some of the parts, or a piece of one; where memory
is too small, each thread takes its own in turns, one after the other.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic

import torch
from torch import Tensor, nn

from vitreous.core.rng import torch_stream
from vitreous.core.threads import SideBySide
from vitreous.errors import ConfigError
from vitreous.model.chance import Draws, drawing_from
from vitreous.model.config import ModelConfig
from vitreous.training.config import TrainConfig
from vitreous.training.distributed import ALONE, Team
from vitreous.training.ema import Model


def smallest_part(model: ModelConfig) -> int:
    """Pictures that a part has at least, more for batch norm's sake; fewer have not been tried."""
    return 8 if model.stem else 4


def choose_shards(
    device: torch.device,
    batch_size: int,
    smallest: int,
    compiled: bool = False,
    processes: int = 1,
) -> int:
    """Parts that a batch is best cut into: one for each of a CPU's threads, none too small."""
    if device.type != "cpu" or compiled:
        return 1
    return max(1, min(processes * torch.get_num_threads(), batch_size // smallest))


def check_team(team: Team, train: TrainConfig, device: torch.device) -> None:
    """Refuse what can't be divided among processes.

    Raises:
        ConfigError: naming it.
    """
    if team.size > train.batch_size:
        raise ConfigError(
            f"train.batch_size is {train.batch_size}, too few for {team.size} processes: at least "
            "one picture each"
        )
    if train.parallel == "fsdp" and train.accumulate * team.size > train.batch_size:
        # They put weights together in every turn, so that each has to have as many.
        raise ConfigError(
            f"train.accumulate is {train.accumulate}: in a batch of {train.batch_size} each of "
            f"{team.size} processes has too few pictures for so many turns"
        )
    if team.size > 1 and device.type == "mps":
        raise ConfigError("several processes train on CPUs or NVIDIA GPUs: set train.device=cpu")


@dataclass(frozen=True)
class Piece:
    """What one thread of one process works on at a time.

    Args:
        part: number of the part that it is of; draws are keyed by it.
        size: pictures of that part.
        first: its first picture's place among those.
        rows: its pictures, as places in the batch.
    """

    part: int
    size: int
    first: int
    rows: range

    def turn(self, number: int, count: int) -> "Piece":
        """One of so many turns to take it in."""
        rows = cut(len(self.rows), count)[number]
        return replace(
            self,
            first=self.first + rows.start,
            rows=range(self.rows.start + rows.start, self.rows.start + rows.stop),
        )


def cut(count: int, parts: int) -> list[range]:
    """Divide a row of things, the first ones getting what is over (as `Tensor.tensor_split`)."""
    each, over = divmod(count, parts)
    starts = [number * each + min(number, over) for number in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(starts)]


@dataclass(frozen=True)
class Division:
    """Who works on which pictures of a batch.

    Args:
        batch: its pictures.
        parts: that it is cut into, whoever works on them.
        turns: that each thread takes its own in, for less memory.
        team: the processes.
    """

    batch: int
    parts: int = 1
    turns: int = 1
    team: Team = ALONE

    def pieces(self, rank: int | None = None) -> list[Piece]:
        """What a process does, this one by default: whole parts, where they divide evenly."""
        rank, size = self.team.rank if rank is None else rank, self.team.size
        whole = cut(self.batch, self.parts)
        mine = cut(self.batch, size)[rank]
        if self.parts % size == 0:
            own = whole[rank * self.parts // size : (rank + 1) * self.parts // size]
            mine = range(own[0].start, own[-1].stop)
        found = []
        for number, part in enumerate(whole):
            rows = range(max(part.start, mine.start), min(part.stop, mine.stop))
            if rows:
                found.append(Piece(number, len(part), rows.start - part.start, rows))
        return found

    def rows(self) -> range:
        """The pictures of this process."""
        pieces = self.pieces()
        return range(pieces[0].rows.start, pieces[-1].rows.stop)

    def count(self) -> int:
        """Pieces of all processes."""
        return sum(len(self.pieces(rank)) for rank in range(self.team.size))


class Shards(Generic[Model]):
    """A model and its copies, which share its weights and take a piece of each batch.

    Args:
        model: the one being trained, on a CPU where there is more than one piece.
        threads: one for each piece.
        division: of every batch; by default this process has all of it, a part for each thread.
        sharded: whether the weights are divided among the processes too (FSDP), which then sums up
            their gradients.
    """

    def __init__(
        self,
        model: Model,
        threads: SideBySide,
        division: Division | None = None,
        sharded: bool = False,
    ) -> None:
        self._division, self._sharded = division, sharded
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
            inputs: each with this process' pictures of the batch as its first axis.
            seed: of dropout and its relatives in the parts' threads; a batch in one part draws
                from PyTorch's own stream, which has been seeded by it.

        Returns:
            The mean loss over the batch, a scalar.
        """
        division = self._division or Division(len(inputs[0]), self._threads.count)
        work = self._alone if len(self._models) == 1 else self._side_by_side
        losses = [work(loss_of, inputs, seed, division, turn) for turn in range(division.turns)]
        loss = torch.stack(losses).sum()
        if division.team.size > 1:
            self._add_up(loss, division)
        return loss

    def _alone(
        self,
        loss_of: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        seed: int,
        division: Division,
        turn: int,
    ) -> Tensor:
        if turn:
            torch.manual_seed(seed)  # each turn draws for the whole part, and takes its rows
        loss = _share(loss_of, self._models[0], inputs, seed, division, (0, turn))
        if loss is None:
            return torch.zeros((), device=inputs[0].device)
        # FSDP takes the mean over the processes, of which each has its share of the sum already.
        (loss * division.team.size if self._sharded else loss).backward()
        return loss.detach()

    def _side_by_side(
        self,
        loss_of: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        seed: int,
        division: Division,
        turn: int,
    ) -> Tensor:
        for first, *others in zip(*self._buffers, strict=True):
            for other in others:
                other.copy_(first)

        def work(number: int) -> list[Tensor | None]:
            place = number, turn
            loss = _share(loss_of, self._models[number], inputs, seed, division, place)
            if loss is None:
                return [torch.zeros(()), *(None for _ in self._weights)]
            gradients = torch.autograd.grad(loss, self._weights, allow_unused=True)
            return [loss.detach(), *gradients]

        results = self._threads.map(work, range(len(self._models)))
        losses, *gradients = zip(*results, strict=True)
        for weight, shares in zip(self._weights, gradients, strict=True):
            weight.grad = _gradient(weight, (weight.grad, *shares) if turn else shares)
        for same in zip(*self._buffers, strict=True):
            same[0].copy_(torch.stack(same).mean(0))
        return torch.stack(losses).sum()

    def _add_up(self, loss: Tensor, division: Division) -> None:
        """Put the sums over all processes in the place of each one's share."""
        buffers = self._buffers[0]
        for buffer in buffers:  # statistics become the mean over all pieces
            buffer.mul_(len(self._models) / division.count())
        shared = [loss, *buffers]
        if not self._sharded:
            shared += [weight.grad for weight in self._weights if weight.grad is not None]
        division.team.add_up(shared)


def _share(
    loss_of: Callable[..., Tensor],
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    seed: int,
    division: Division,
    place: tuple[int, int],
) -> Tensor | None:
    """What a thread's turn adds to the mean loss of the batch; draws are keyed by part and picture.

    ``None`` where nothing is left for it.
    """
    number, turn = place
    piece = division.pieces()[number].turn(turn, division.turns)
    if not piece.rows:
        return None
    start = piece.rows.start - division.rows().start
    own = [tensor[start : start + len(piece.rows)] for tensor in inputs]
    stream = torch_stream(seed, "shard", piece.part) if division.parts > 1 else None
    is_whole = len(piece.rows) == piece.size
    draws = Draws(stream, None if is_whole else piece.size, piece.first)
    with nullcontext() if stream is None and is_whole else drawing_from(draws):
        return loss_of(model, *own) * (len(piece.rows) / division.batch)


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
