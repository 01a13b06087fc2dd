"""What a run does where others are at work, the disk refuses, clocks jump or pictures disappear.

Called by `faults.py`. Each function returns what went wrong, or nothing.
"""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import faults_runs as runs

Attempt = Callable[[Path], str | None]


def _case(folder: Path) -> runs.Case:
    folder.mkdir()
    return runs.cases(folder)[0]


def _middle(case: runs.Case, out: Path) -> None:
    """Leave a run that was killed in its middle."""
    tally = out.with_suffix(".tally")
    runs.sit(
        case.command(out.with_name("whole")),
        runs.count_file_operations(out.with_name("whole"), None, tally),
    ).wait()
    half = tally.stat().st_size // 2
    assert runs.sit(case.command(out), runs.count_file_operations(out, half, None)).wait() == -9


def _compared(case: runs.Case, out: Path) -> str | None:
    """Go on with a run to its end, and compare it with one that was never stopped."""
    status = runs.sit(case.resume(out)).wait()
    if status:
        return f"going on ended with status {status}"
    same = runs.outcome(out) == runs.outcome(out.with_name("whole"))
    return None if same else "not the same bits"


def two_processes(folder: Path) -> str | None:
    case, out = _case(folder), folder / "run"
    first = runs.sit(case.command(out))
    while not (out / ".lock").exists():
        time.sleep(0.01)
    second = runs.sit(case.resume(out)).wait()
    status = first.wait()
    if (second, status) != (2, 0):
        return f"statuses {status} and {second}, not 0 and 2"
    return None


def dead_lock(folder: Path) -> str | None:
    case, out = _case(folder), folder / "run"
    _middle(case, out)
    if not (out / ".lock").exists():
        return "there was no lock to leave"
    return _compared(case, out)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def full_disk(folder: Path) -> str | None:
    case = _case(folder)
    disk = folder / "disk"
    with small_disk(disk, "20m"):
        _middle(case, folder / "run")
        out, weight = disk / "run", disk / "weight"
        status = runs.sit(case.command(out)).wait() if _fill(weight, disk, 250_000) else -1
        if status != 1:
            return f"on a full disk it ended with status {status}, not 1"
        weight.unlink()
        again = case.resume(out) if (out / "config.toml").exists() else case.command(out)
        status = runs.sit(again).wait()
        if status:
            return f"with room again it ended with status {status}"
        same = runs.outcome(out) == runs.outcome(folder / "whole")
        return None if same else "not the same bits"


def _fill(weight: Path, disk: Path, free: int) -> bool:
    """Leave so many bytes free."""
    weight.write_bytes(b"\0" * (shutil.disk_usage(disk).free - free))
    return True


def read_only_disk(folder: Path) -> str | None:
    case = _case(folder)
    disk = folder / "disk"
    with small_disk(disk, "20m"):
        out = disk / "run"
        _middle(case, out)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        status = runs.sit(case.resume(out)).wait()
        finished = runs.sit(case.resume(disk / "whole")).wait()
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        if (status, finished) != (1, 0):
            return f"statuses {status} and, of a finished run, {finished}, not 1 and 0"
        return _compared(case, out)


def jumping_clocks(folder: Path) -> str | None:
    case, out = _case(folder), folder / "run"
    _middle(case, out)

    def jump() -> None:
        wall, steady, hops, leaps = time.time, time.monotonic, itertools.count(), itertools.count()
        time.time = lambda: wall() + (-1) ** next(hops) * 1e8
        time.monotonic = lambda: steady() + 3600.0 * next(leaps)

    status = runs.sit(case.resume(out), jump).wait()
    if status:
        return f"going on ended with status {status}"
    same = runs.outcome(out) == runs.outcome(folder / "whole")
    return None if same else "not the same bits"


def pictures_that_disappear(folder: Path) -> str | None:
    case, out = _case(folder), folder / "run"
    status = runs.sit(case.command(folder / "whole")).wait()
    sitting = runs.sit(case.command(out))
    while not (out / "metrics.jsonl").exists():
        time.sleep(0.005)
    os.rename(folder / "faces", folder / "moved")  # noqa: PTH104
    if (status := sitting.wait()) != 0:
        return f"it ended with status {status}"
    weights = [runs.outcome(path)["last.safetensors"] for path in (out, folder / "whole")]
    return None if weights[0] == weights[1] and (out / "report.html").exists() else "not the same"


PLACES: list[tuple[str, str, Attempt]] = [
    ("two processes", "the second is refused with status 2, the first ends well", two_processes),
    ("dead lock", "the lock of a killed process is no lock; same bits", dead_lock),
    ("full disk", "one line, status 1; with room again the same bits", full_disk),
    ("read-only disk", "one line, status 1; a finished run says so with 0; later the same bits",
     read_only_disk),
    ("jumping clocks", "date 3 years to and fro, steady clock an hour on at each look: same bits",
     jumping_clocks),
    ("pictures disappear", "a run that has begun ends with its report and the same weights",
     pictures_that_disappear),
]  # fmt: skip
