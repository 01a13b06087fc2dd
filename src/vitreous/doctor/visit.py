"""`check`, as a person asks for it: look at the pictures, tell progress, write page and proposal.

Part of `api`. What takes long to import is imported when it is asked for.
"""

from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from vitreous.core.console import Console
from vitreous.core.files import atomic_path, storage_errors, write_text
from vitreous.core.run import check_free
from vitreous.data.decode import read_picture
from vitreous.data.overlay import overlay_text
from vitreous.doctor.findings import Checkup
from vitreous.errors import RunError, UnreadablePicture

#: A JPEG on the page is decoded no larger than a few times this side.
_PAGE_SIDE = 128


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
        check_free(folder)
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise RunError(f"{folder} lies among the pictures of {source}: name another --out")
    with console.stages() as on_progress:
        checkup = check_source(source, on_progress)
    return _written(checkup, folder) if folder else checkup


def _written(checkup: Checkup, folder: Path) -> Checkup:
    from vitreous.doctor.page import render_checkup

    overlay = folder / "overlay.csv"
    html = render_checkup(checkup, _picture_of, str(overlay))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # Bytes of a name that is no UTF-8 come back as they were.
    proposal = overlay_text(checkup.proposal).encode("utf-8", "surrogateescape")
    with atomic_path(overlay) as staging:
        staging.write_bytes(proposal)
    write_text(folder / "index.html", html)
    return replace(checkup, page=folder / "index.html", overlay=overlay)


def _picture_of(path: Path) -> np.ndarray | None:
    try:
        return read_picture(path, cover=(_PAGE_SIDE, _PAGE_SIDE))
    except UnreadablePicture:
        return None
