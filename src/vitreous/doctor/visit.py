"""`check`, as a person asks for it: look at the pictures, tell progress, write page and proposal.

Part of `api`. What takes long to import is imported when it is asked for.
"""

from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path

from vitreous.core.console import Console
from vitreous.data.folder import check_beside
from vitreous.doctor.findings import Checkup
from vitreous.pages.proposal import write_proposal


def check(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    console: Console | None = None,
) -> Checkup:
    """Look for what is wrong with pictures before a model learns it; no picture is changed.

    Args:
        source: a folder of classes or a table, as for `train`.
        out: a new folder, outside the pictures, for the page ``index.html`` and the proposal
            ``overlay.csv``; without it nothing is written.
        console: where progress goes.

    Returns:
        The findings, the worst first.

    Raises:
        DataError: where there are no pictures or no classes to be listed.
        RunError: where something stands at `out` already, or it lies among the pictures.
        StorageError: where the disk is full.

    Example:
        >>> import tempfile
        >>> from vitreous.data.faces import write_faces
        >>> with tempfile.TemporaryDirectory() as place:
        ...     files = write_faces(Path(place) / "faces", 10, size=32)
        ...     checkup = check(Path(place) / "faces", console=Console(quiet=True))
        >>> checkup.counts["error"]
        0
    """
    from vitreous.doctor.checkup import check_source

    console = console or Console()
    source = Path(source)
    folder = None if out is None else Path(out)
    if folder:
        check_beside(folder, source)
    with console.stages() as on_progress:
        checkup = check_source(source, on_progress)
    if folder is None:
        return checkup
    from vitreous.doctor.page import render_checkup

    page, overlay = write_proposal(folder, partial(render_checkup, checkup), checkup.proposal)
    return replace(checkup, page=page, overlay=overlay)
