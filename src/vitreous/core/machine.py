"""This machine: what its processor is called, and how many of its cores nobody else is using."""

import os
import platform
import time
from pathlib import Path

#: How long the cores are watched at a time, a few ticks of the system's own clock, and how often.
_WATCH_S, _WATCHES = 0.05, 3


def processor() -> str:
    """The processor's name and number of cores, as far as the system tells."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    return f"{name}, {os.cpu_count()} cores"


def usable_cores() -> set[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def free_cores() -> int:
    """How many cores this process may run on that are idle now; at least one.

    A thread on a core that somebody else keeps busy holds up all others that share its work.
    On Linux the cores are watched for a twentieth of a second, during which this process sleeps,
    and twice more where some are busy: what is over by then held nobody up. Elsewhere the mean load
    of the last minute is taken.
    """
    usable = usable_cores()
    if len(usable) == 1:
        return 1
    busy = 0
    if _core_ticks() is not None:
        busy = _watch(usable)
        for _ in range(_WATCHES - 1):
            busy = busy and min(busy, _watch(usable))
    elif hasattr(os, "getloadavg"):
        busy = round(os.getloadavg()[0])
    return max(1, len(usable) - busy)


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
