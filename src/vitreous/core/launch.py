"""Which launch of `torchrun` this process belongs to, and the runs that it began.

`torchrun` starts all processes again when one has died. What they began before is theirs to go on
with; what another launch left in the same place is not.
"""

import os
import platform
from pathlib import Path

from vitreous.core.files import is_taken, numbered

#: In a run's folder: the launch that it was begun by.
FILE = "launch.txt"

#: Runs that this very process has begun or gone on with; it doesn't do so twice.
_taken: set[Path] = set()


def this_launch() -> str | None:
    """A name that is the same behind a restart, and of no other launch; ``None`` without torchrun.

    It is the one that was given to `torchrun` (``--rdzv-id``), such as a cluster's number of the
    job, or else the process that watches over this one.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name == "none":  # what torchrun says where nothing was given
        return f"{platform.node()} {os.getppid()} {_parent_began()}"
    return name


def first_files(path: Path) -> dict[str, str]:
    """What a new run's folder has to have, by name, for a restart to know it again."""
    _taken.add(path.absolute())
    launch = this_launch()
    return {} if launch is None else {FILE: launch}


def run_place(default: Path, named: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """Where a run goes, and whether it has begun there before a restart.

    That is the place named, else the default or the first number behind it that nothing has.
    """
    if named is not None:
        return Path(named), _is_own(Path(named))
    place = next(place for place in numbered(default) if not is_taken(place) or _is_own(place))
    return place, is_taken(place)


def _is_own(path: Path) -> bool:
    """Whether this launch began what is in a folder, and this process has yet to go on with it."""
    launch = this_launch()
    if launch is None or path.absolute() in _taken:
        return False
    try:
        is_own = (path / FILE).read_text(encoding="utf-8") == launch
    except (OSError, UnicodeDecodeError):
        return False
    if is_own:
        _taken.add(path.absolute())
    return is_own


def _parent_began() -> str:
    """When the process that watches over this one began, as far as the system tells (proc(5))."""
    try:
        text = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
    return text.rpartition(")")[2].split()[19]
