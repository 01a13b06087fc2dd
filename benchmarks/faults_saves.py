"""A fault in each system call of a save, by `strace -e inject`.

A forked process waits until it is watched, writes the checkpoint of step 2 beside that of step 1
and new weights over old ones, and ends. Called by `faults.py`, before anything has started a
thread.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vitreous.core.files import read_tensors, remove_unfinished, write_json, write_tensors
from vitreous.errors import RunError, StorageError
from vitreous.training.checkpoint import Snapshot, write_checkpoint

#: Calls of which an error says something about the disk.
_CALLS = {"openat", "open", "write", "writev", "pwrite64", "fsync", "fdatasync", "rename",
          "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "ftruncate",
          "fallocate", "chmod", "fchmod", "close"}  # fmt: skip
_ERRORS = ("ENOSPC", "EIO", "EROFS")
#: Exit status of a save that failed with one line.
_FAILED = 3


def measure_saves(folder: Path) -> list[dict[str, Any]]:
    """A row for each kind of fault."""
    _, plain = _save_watched(folder, None)
    kinds = [("killed", plain, "signal=SIGKILL")]
    on_disk = {call: count for call, count in plain.items() if call in _CALLS}
    kinds += [(name, on_disk, f"error={name}") for name in _ERRORS]
    rows = []
    for name, calls, fault in kinds:
        row = {"fault": name, "tried": 0, "failed": 0, "new": 0, "whole": 0, "lost": []}
        for call, count in calls.items():
            for at in range(1, count + 1):
                status, _ = _save_watched(folder, f"inject={call}:{fault}:when={at}")
                step, said = _look(folder)
                row["tried"] += 1
                row["failed"] += status != 0
                row["new"] += step == 2
                row["whole"] += said is None
                if said is not None:
                    row["lost"].append(f"{call} {at}: {said}")
        print(row, flush=True)
        rows.append(row)
    return rows


def _state(step: int) -> Snapshot:
    tensors = {f"model.{name}": torch.full((3000,), float(step)) for name in "abc"}
    return Snapshot(step, tensors, {"step": step, "skipped_in_a_row": 0, "returns": 0})


def _prepare(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "checkpoints").mkdir(parents=True)
    for step in (0, 1):
        write_checkpoint(folder / "checkpoints", _state(step))
    write_tensors(folder / "best.safetensors", {"a": torch.zeros(3000)}, {"step": 1})
    write_json(folder / "plan.json", {"step": 1})


def _save_watched(folder: Path, fault: str | None) -> tuple[int, Counter[str]]:
    """Exit status of a save with a fault or without, and how often it made which call."""
    _prepare(folder)
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.read(told, 1)
            write_json(folder / "plan.json", {"step": 2})
            write_tensors(folder / "best.safetensors", {"a": torch.ones(3000)}, {"step": 2})
            write_checkpoint(folder / "checkpoints", _state(2))
            status = 0
        except StorageError as error:
            status = _FAILED if len(str(error).splitlines()) == 1 else 1
        finally:
            os._exit(status)
    log = folder.with_suffix(".strace")
    what = ["-e", "trace=all", *(["-e", fault] if fault else [])]
    watcher = subprocess.Popen(
        ["strace", "-p", str(pid), "-o", str(log), *what], stderr=subprocess.PIPE, text=True
    )
    assert watcher.stderr is not None
    for line in watcher.stderr:
        if "attached" in line:
            break
        if "strace:" in line and "attach" in line:
            os.kill(pid, signal.SIGKILL)
            raise RuntimeError(line)
    os.write(tell, b".")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    watcher.wait()
    watcher.stderr.close()
    os.close(told)
    os.close(tell)
    # The last one never returns: the process ends by it.
    calls = re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE)
    return status, Counter(call for call in calls if call != "exit_group")


def _look(folder: Path) -> tuple[int, str | None]:
    """The newest readable checkpoint's step, and what is wrong, if anything is."""
    step = max((found for found in (_whole(path) for path in _paths(folder)) if found), default=0)
    if step not in (1, 2):
        return step, f"the newest readable checkpoint is of step {step}"
    damaged = [path.name for path in _paths(folder) if _whole(path) is None]
    if damaged:
        return step, f"not whole: {', '.join(damaged)}"
    tensors, metadata = read_tensors(folder / "best.safetensors")
    if not torch.equal(tensors["a"], torch.full((3000,), metadata["step"] - 1.0)):
        return step, "the best weights are mixed"
    try:
        write_checkpoint(folder / "checkpoints", _state(3))
        remove_unfinished(folder)
    except StorageError as error:
        return step, f"the next save failed: {error}"
    if _whole(folder / "checkpoints" / "step-000000003.safetensors") != 3:
        return step, "the next save is not whole"
    left = [path.name for path in folder.rglob(".*")]
    return step, f"left over: {left}" if left else None


def _paths(folder: Path) -> Sequence[Path]:
    return sorted((folder / "checkpoints").glob("step-*.safetensors"))


def _whole(path: Path) -> int | None:
    """The step of a checkpoint that is what was written; ``None`` where it isn't."""
    try:
        tensors, metadata = read_tensors(path)
    except RunError:
        return None
    wanted = _state(metadata["step"])
    same = tensors.keys() == wanted.tensors.keys() and all(
        torch.equal(value, wanted.tensors[name]) for name, value in tensors.items()
    )
    return metadata["step"] if same and metadata == wanted.metadata else None
