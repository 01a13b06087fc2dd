"""A word on files that lie among the pictures and are no part of them."""

from collections.abc import Sequence
from pathlib import Path

from vitreous.core.console import Console
from vitreous.data.folder import is_unread
from vitreous.data.table import EXTENSIONS


def tell_left_out(ignored: Sequence[Path], console: Console) -> None:
    """Say what of a listing's folder is left out, and why.

    Args:
        ignored: `Listing.ignored`.
        console: is told.
    """
    if unread := list(filter(is_unread, ignored)):
        warn_of_formats(unread, console)
    others = [path for path in ignored if not is_unread(path)]
    if loose := [path for path in others if path.suffix.lower() in EXTENSIONS]:
        console.warn(
            f"pictures outside the folders of classes are left out, {len(loose)} in all, such as "
            f"{loose[0]}"
        )
    if others := [path for path in others if path.suffix.lower() not in EXTENSIONS]:
        console.info(
            f"files that are not pictures by their names are left out, {len(others)} in all, "
            f"such as {others[0]}"
        )


def warn_of_formats(unread: Sequence[Path], console: Console) -> None:
    """Say that photographs of formats such as HEIC are left out."""
    console.warn(
        f"photographs in a format that isn't read are left out, {len(unread)} in all, such as "
        f"{unread[0]}: convert them to JPEG"
    )
