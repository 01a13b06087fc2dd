"""The runs that `faults.py` kills: small, on a CPU, with everything random that training offers.

Each sitting is a process of its own, forked from one that has imported everything already, so that
a kill costs the sitting and not the imports; nothing is started there before it forks.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitreous.cli import _status, cli
from vitreous.data.faces import write_faces

_TINY = ("model.depth=1", "model.embed_dim=32", "model.num_heads=2", "train.batch_size=8")
_RANDOM = ("model.drop_path_rate=0.2", "model.dropout=0.1", "model.attention_dropout=0.1",
           "augment.erase_chance=0.5", "augment.mix_chance=0.5",
           "augment.color_chance=0.8", "augment.affine_chance=0.8", "train.ema=0.2")  # fmt: skip
#: Keys of a run's files that tell of time or place.
_NOT_COMPARED = {"seconds", "elapsed_s", "peak_memory_bytes"}


@dataclass(frozen=True)
class Case:
    """A run to be killed.

    Args:
        name: in the table.
        what: is on in it.
        words: of the command, without where it writes.
        settings: each for ``--set``.
    """

    name: str
    what: str
    words: tuple[str, ...]
    settings: tuple[str, ...] = ()

    def command(self, out: Path) -> list[str]:
        """The command that begins it."""
        sets = [word for setting in self.settings for word in ("--set", setting)]
        return [*self.words, "--out", str(out), "--quiet", *sets]

    def resume(self, out: Path) -> list[str]:
        """The command that goes on with it."""
        return [self.words[0], "--resume", str(out), "--quiet"]


def cases(folder: Path) -> list[Case]:
    """All cases; their pictures, and weights to begin with, are made in a folder.

    Raises:
        RuntimeError: where those weights can't be trained.
    """
    faces, more = folder / "faces", folder / "more"
    if not faces.exists():
        write_faces(faces, 16, size=32)
        write_faces(more, 16, size=32, seed=1)
    train = ("train", str(faces), "--cache", str(folder / "cache"))
    scratch = (*train, "--epochs", "6")
    stem = ("model.stem=[8,16,32]", *_TINY)
    weights = folder / "weights"
    begun = Case("", "", (*train, "--epochs", "2"), (*stem, "train.optimizer=adamw"))
    if not weights.exists() and sit(begun.command(weights)).wait() != 0:
        raise RuntimeError("the first weights could not be trained")
    tuned = (*train, "--epochs", "4", "--weights", str(weights), "--image-size", "32")
    return [
        Case("muon", "scratch recipe, Muon, two shards, EMA, every augmentation and dropout",
             scratch, (*stem, *_RANDOM, "train.optimizer=muon", "train.shards=2")),
        Case("adamw", "AdamW, balanced weights, recomputed blocks, batches in two pieces",
             scratch, (*stem, *_RANDOM, "train.optimizer=adamw", "train.class_weights=balanced",
                       "train.grad_checkpointing=true", "train.accumulate=2",
                       "model.pool=mean", "model.patch_dropout=0.2")),
        Case("keras_adam", "the lecture's model and training, smaller",
             (*train, "--epochs", "4", "--recipe", "lecture", "--image-size", "32"),
             ("model.depth=1", "model.embed_dim=16", "model.head_dim=8", "model.mlp_dim=16",
              "model.num_heads=2", "train.batch_size=8")),
        Case("ladder", "frozen features, a new head, low-rank updates, all weights", tuned,
             ("train.batch_size=8", "augment.mix_chance=0.5", "augment.erase_chance=0.5")),
        Case("folds", "two folds and the model that is kept",
             (*train, "--epochs", "2", "--folds", "2"), (*stem, *_RANDOM)),
        Case("pretrain", "masked autoencoding",
             ("pretrain", str(more), "--cache", str(folder / "cache"), "--epochs", "6"),
             ("model.depth=1", "model.embed_dim=32", "model.num_heads=2", "model.stem=[8,16,32]",
              "pretrain.decoder_dim=16", "pretrain.decoder_depth=1", "train.batch_size=8")),
        Case("goes back", "a rate at which the loss is no number, until the run goes back", scratch,
             (*stem, "train.optimizer=adamw", "train.learning_rate=100.0")),
    ]  # fmt: skip


class Sitting:
    """A process that runs one command.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.started = pid, time.monotonic()

    def wait(self) -> int:
        """Its exit status; -9 where it was killed."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill_after(self, seconds: float) -> int:
        """Kill it, if it isn't at its end by then, and return its exit status."""
        while time.monotonic() - self.started < seconds:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def sit(words: list[str], before: Callable[[], None] | None = None) -> Sitting:
    """Run a command in a process of its own.

    Args:
        words: of the command.
        before: is called there first.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return Sitting(pid)
    status = 1
    try:
        if before:
            before()
        status = _status(lambda: cli.main(words, standalone_mode=False))
        sys.stderr.flush()
    finally:
        os._exit(status)


def count_file_operations(folder: Path, at: int | None, tally: Path | None) -> Callable[[], None]:
    """Let a process count what it does to the files of a folder, by Python's own audit events.

    Args:
        folder: whose files.
        at: after so many of them the process kills itself, with SIGKILL; ``None`` for never.
        tally: file that holds a byte for each, to be counted from outside.
    """
    text = str(folder)

    def begin() -> None:
        counted, log = [0], open(tally, "ab", buffering=0) if tally else None  # noqa: PTH123, SIM115

        def note(event: str, arguments: tuple) -> None:
            if event not in (
                "open",
                "os.rename",
                "os.remove",
                "os.mkdir",
                "os.truncate",
                "os.listdir",
            ):
                return
            if not any(text in str(one) for one in arguments[:2]):
                return
            counted[0] += 1
            if log:
                log.write(b".")
            if counted[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(note)

    return begin


def outcome(run: Path) -> dict[str, str]:
    """What has to be the same however often a run was killed, by file."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".safetensors" and path.parent.name != "checkpoints":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "metrics.jsonl":
            lines = [json.dumps(line, sort_keys=True) for line in _lines(path)]
            found[name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        elif path.name in (
            "evaluation.json",
            "plan.json",
            "ladder.json",
            "folds.json",
            "diagnosis.json",
        ):
            value = _without_time(json.loads(path.read_text().replace(str(run), "RUN")))
            found[name] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return found


def _lines(path: Path) -> Iterator[Any]:
    for line in path.read_text().splitlines():
        yield _without_time(json.loads(line))


def _without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_time(one) for key, one in value.items() if key not in _NOT_COMPARED}
    return [_without_time(one) for one in value] if isinstance(value, list) else value
