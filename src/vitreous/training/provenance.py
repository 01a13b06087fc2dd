"""Under which circumstances a run computes: what decides its numbers beside its settings.

`provenance.json` holds those of its beginning and, where a later sitting's were others, those too.
"""

from typing import Any

import torch

from vitreous.core.console import Console
from vitreous.core.files import named_if_damaged, read_json, write_json
from vitreous.core.machine import processor
from vitreous.core.run import RunFolder, code_fingerprint, versions
from vitreous.training.config import Device
from vitreous.training.device import choose_device, describe_device, peak_memory_bytes
from vitreous.training.distributed import team

#: What else makes other bits, in words.
_CALLED = {
    "device": "the device was",
    "processor": "the processor was",
    "processes": "processes that train together were",
}


def circumstances(device: Device) -> dict[str, Any]:
    """Those of this process.

    Args:
        device: as in `TrainConfig`.
    """
    return {
        "versions": versions(),
        "code": code_fingerprint(),
        "device": describe_device(choose_device(device)),
        "processor": processor(),
        "processes": team().size,
    }


def tell_changes(run: RunFolder, device: Device, console: Console) -> None:
    """Warn where a run goes on under other circumstances than before, and write them down."""
    if not run.provenance.exists():  # begun by a version that wrote it at the end
        return
    known, now = read_json(run.provenance), circumstances(device)
    with named_if_damaged(run.provenance):
        later = list(known.get("later", []))
        changes = _differences(later[-1] if later else known, now)
    if not changes:
        return
    console.warn(
        f"{run.path} goes on, but not to the same bits as if it had never been stopped: "
        f"{'; '.join(changes)}"
    )
    write_json(run.provenance, {**known, "later": [*later, now]})


def note_memory(run: RunFolder, device: torch.device) -> int | None:
    """Write down the most memory in use so far, in bytes; ``None`` where it isn't known."""
    known = read_json(run.provenance) if run.provenance.exists() else {}
    peak = peak_memory_bytes(device)
    write_json(run.provenance, {**known, "peak_memory_bytes": peak})
    return peak


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is another, in words."""
    old, new = before["versions"], now["versions"]
    changes = [
        f"{name} was {old[name]} and is {new.get(name)}"
        for name in old
        if old[name] != new.get(name)
    ]
    if before["code"] != now["code"] and old["vitreous"] == new["vitreous"]:
        changes.append("vitreous' own code has changed")
    for name in _CALLED:
        if before[name] != now[name]:
            changes.append(f"{_CALLED[name]} '{before[name]}' and now '{now[name]}'")
    return changes
