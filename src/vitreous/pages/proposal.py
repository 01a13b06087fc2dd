"""A page about some of a source's pictures, and the changes to it that the page proposes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vitreous.core.files import storage_errors, write_text
from vitreous.data.overlay import Change, write_overlay
from vitreous.data.remote import SPOOL
from vitreous.pages.pictures import PictureOf, picture_at


def write_proposal(
    folder: Path, render: Callable[[PictureOf, str], str], proposal: Sequence[Change]
) -> tuple[Path, Path]:
    """Write both.

    Args:
        folder: made where there is none.
        render: the page as HTML, from what reads a picture and the name of the changes' file.
        proposal: the changes.

    Returns:
        The page ``index.html`` and the changes ``overlay.csv``.

    Raises:
        StorageError: where the disk is full.
    """
    SPOOL.follow((), 1)  # some pictures anywhere: a far shard is not fetched as a whole for each
    page, overlay = folder / "index.html", folder / "overlay.csv"
    html = render(picture_at, str(overlay))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_overlay(overlay, proposal)
    write_text(page, html)
    return page, overlay
