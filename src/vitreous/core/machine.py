"""This machine: what its processor is called, and how many of its cores nobody else is using."""

import math
import os
import platform
import time
from pathlib import Path

#: How long the cores are watched at a time, a few ticks of the system's own clock, and how often.
_WATCH_S, _WATCHES = 0.05, 3
#: Where Linux says which control groups a process is in, and what they may have.
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def processor() -> str:
    """The processor's name and number of cores, as far as the system tells."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def is_by_amd() -> bool:
    """Whether AMD made the processor, as far as the system tells."""
    return "AuthenticAMD" in (_cpuinfo("vendor_id") or platform.processor())  # Linux, Windows


def _cpuinfo(key: str) -> str | None:
    """What Linux says of the first core; ``None`` elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(key))
    return next(found, None)


def allowed_cores() -> set[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many cores this process may keep busy; a container may have less time than cores."""
    return max(1, math.ceil(min(len(allowed_cores()), _quota())))


def _quota() -> float:
    """The cores' worth of time that control groups leave this process; infinite without any.

    Reference:
        cgroups(7); "cpu.max" in the kernel's cgroup-v2.rst, and its two forerunners in version 1.
    """
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf  # not Linux
    own = next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")
    folders = [_GROUPS / own, *(_GROUPS / own).parents]
    limits = [_read(folder / "cpu.max") for folder in folders if folder.is_relative_to(_GROUPS)]
    first = [_read(_GROUPS / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    limits.append([word for words in first for word in words])
    shares = [
        int(words[0]) / int(words[1])
        for words in limits
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1])
    ]
    return min(shares, default=math.inf)


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []


def free_cores() -> int:
    """How many cores this process may run on that are idle now; at least one.

    A thread on a core that somebody else keeps busy holds up all others that share its work.
    On Linux the cores are watched for a twentieth of a second, during which this process sleeps,
    and twice more where some are busy: what is over by then held nobody up. Elsewhere the mean load
    of the last minute is taken.
    """
    allowed, most = allowed_cores(), usable_cores()
    if most == 1:
        return 1
    busy = 0
    if _core_ticks() is not None:
        busy = _watch(allowed)
        for _ in range(_WATCHES - 1):
            busy = busy and min(busy, _watch(allowed))
    elif hasattr(os, "getloadavg"):
        busy = round(os.getloadavg()[0])
    return max(1, min(most, len(allowed) - busy))


def _watch(cores: set[int]) -> int:
    """How many of the cores are busy for a while."""
    before = _core_ticks() or {}
    time.sleep(_WATCH_S)
    after = _core_ticks() or {}
    return sum(_is_busy(before, after, core) for core in cores)


def _core_ticks() -> dict[int, tuple[int, int]] | None:
    """Ticks that each core was idle, and all its ticks (proc(5), /proc/stat); Linux only."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        if name.startswith("cpu") and name[3:].isdigit():
            # The first eight don't overlap: user nice system idle iowait irq softirq steal.
            ticks = [int(word) for word in rest.split()[:8]]
            found[int(name[3:])] = ticks[3] + ticks[4], sum(ticks)
    return found


def _is_busy(
    before: dict[int, tuple[int, int]], after: dict[int, tuple[int, int]], core: int
) -> bool:
    if core not in before or core not in after:
        return False
    idle, total = (after[core][place] - before[core][place] for place in (0, 1))
    return idle < total / 2
