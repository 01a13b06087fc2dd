"""Several processes that train together: who they are, and how they talk.

`torchrun` starts them and tells each its number. The first one does the whole work of a command
and leads; the others stand by and take part in training steps (see `follow`). It tells them what
comes next over connections of their own, on which they may wait as long as it takes.
"""

import atexit
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vitreous.errors import TrainingError

#: How long a process waits for its partners within a step.
_STEP_TIMEOUT = timedelta(minutes=10)
#: How long it waits for the leader, which may decode a million pictures first. One that has died
#: closes its connections, and isn't waited for.
_ORDER_TIMEOUT = timedelta(days=30)
#: How long a follower's last words are kept for the leader.
_WORDS_TIMEOUT = timedelta(seconds=30)
#: Bytes that are summed up at once: enough to keep a network busy, little to hold twice.
_BUCKET_BYTES = 32 * 2**20


class Team:
    """The processes that train together; this one alone, unless it has joined others.

    Args:
        rank: number of this one, 0 for the leader.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this process does what only one may do."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in the place of each tensor; the same bits everywhere."""

    def tell(self, what: str, **more: Any) -> None:
        """The leader says to all others what comes next."""

    def give(self, tensor: Tensor) -> Tensor:
        """The leader's values, on the CPU of each process; others name size and type by theirs."""
        return tensor.detach().cpu()


class Joined(Team):
    """Processes that have found one another by `torchrun`'s environment."""

    def __init__(self) -> None:
        store, rank, size = next(iter(rendezvous("env://", timeout=_STEP_TIMEOUT)))
        # What was left there before a restart is of processes that are gone.
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        super().__init__(rank, size)
        self._words = PrefixStore("words", store)
        local = int(os.environ.get("LOCAL_RANK", "0"))
        gpus = torch.cuda.device_count()
        # NCCL wants a GPU for each process.
        has_own = gpus >= int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
        if gpus:
            torch.cuda.set_device(local % gpus)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus and has_own else "gloo",
            store=PrefixStore("work", store),
            rank=rank,
            world_size=size,
            timeout=_STEP_TIMEOUT,
        )
        orders = dist.new_group(backend="gloo", timeout=_ORDER_TIMEOUT)
        assert isinstance(orders, dist.ProcessGroup)
        self._orders: dist.ProcessGroup | None = orders
        atexit.register(self.part)

    def part(self) -> None:
        """Close the connections to the others, for ever."""
        self._orders = None
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def has_parted(self) -> bool:
        """Whether it has."""
        return self._orders is None

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        waiting = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            waiting.append((dist.all_reduce(flat, async_op=True), flat, bucket))
        for work, flat, bucket in waiting:
            assert work is not None
            work.wait()
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def tell(self, what: str, **more: Any) -> None:
        if not self.leads:
            return
        text = json.dumps([what, more]).encode()
        self.give(torch.tensor([len(text)]))
        self.give(torch.frombuffer(bytearray(text), dtype=torch.uint8))

    def hear(self) -> tuple[str, dict[str, Any]]:
        """Wait for what the leader says."""
        length = int(self.give(torch.zeros(1, dtype=torch.int64)))
        text = self.give(torch.zeros(length, dtype=torch.uint8))
        what, more = json.loads(text.numpy().tobytes())
        return what, more

    def give(self, tensor: Tensor) -> Tensor:
        plain = tensor.detach().cpu().contiguous()
        dist.broadcast(plain, src=0, group=self._orders)
        return plain

    @staticmethod
    def is_lost(error: Exception) -> bool:
        """Whether an error says that another process is gone."""
        told = ("gloo", "Gloo", "NCCL", "Connection", "connection")
        return isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and any(word in str(error) for word in told)
        )

    def leave_words(self, text: str) -> bool:
        """Say why this follower ends; whether the leader has taken it up and will tell."""
        with suppress(RuntimeError):
            self._words.set("error", f"process {self.rank + 1} of {self.size}: {text}")
            self.part()  # so that the leader takes notice
            self._words.wait(["taken"], _WORDS_TIMEOUT)
            return True
        return False

    def last_words(self) -> str | None:
        """Why a follower has ended, where one said so."""
        with suppress(RuntimeError):
            if self._words.check(["error"]):
                text = self._words.get("error").decode()
                self._words.set("taken", "")
                return text
        return None


ALONE = Team()
_team: Team = ALONE


def team() -> Team:
    """The processes that train together with this one."""
    return _team


def team_for(parallel: str) -> Team:
    """The processes that take part in a training, by its setting `TrainConfig.parallel`."""
    return ALONE if parallel == "none" else team()


def is_started_with_others() -> bool:
    """Whether `torchrun`, or who sets the same variables, has started more than this process."""
    told = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return told and int(os.environ["WORLD_SIZE"]) > 1


def join() -> Team:
    """Meet the others; once in a process' life."""
    global _team
    if _team is ALONE and is_started_with_others():
        _team = Joined()
    return _team


def as_lost(joined: Joined, error: Exception) -> TrainingError | None:
    """What the leader says where it has lost a follower; ``None`` where it is another error."""
    if text := joined.last_words():
        return TrainingError(text)
    if joined.is_lost(error):
        return TrainingError(
            "another process of this training has ended; what was saved is whole: --resume goes on "
            "with it, and torchrun --max-restarts does so by itself"
        )
    return None


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """In their order, those of one type and device together, as many as are summed up at once."""
    found: list[list[Tensor]] = []
    kind, size = None, 0
    for tensor in tensors:
        own = tensor.dtype, tensor.device
        if own != kind or size + tensor.nbytes > _BUCKET_BYTES:
            found.append([])
            kind, size = own, 0
        found[-1].append(tensor)
        size += tensor.nbytes
    return found
