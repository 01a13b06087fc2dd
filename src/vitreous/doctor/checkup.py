"""The whole visit: list, look at every file, compare, and say what was found."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vitreous.data.cache import Progress
from vitreous.data.folder import Listing, is_unread, survey
from vitreous.data.table import EXTENSIONS
from vitreous.doctor.classes import class_findings
from vitreous.doctor.collection import Collection
from vitreous.doctor.copies import copy_findings, find_copies
from vitreous.doctor.damage import picture_format
from vitreous.doctor.examine import examine
from vitreous.doctor.files import file_findings
from vitreous.doctor.findings import Checkup, Finding, counted, sort_findings
from vitreous.doctor.groups import group_findings
from vitreous.doctor.proposal import propose
from vitreous.doctor.shortcuts import shortcut_findings

#: What file browsers leave behind.
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"))
#: Files passed over whose content is looked at.
_LOOKED_INTO = 1000


def check_source(source: Path, on_progress: Progress | None = None) -> Checkup:
    """Look at a folder of classes or a table; nothing is written.

    Args:
        source: as for training.
        on_progress: called with a description, the parts done and their total.

    Raises:
        DataError: where there is nothing to list, see `survey`.
        StorageError: where there is no room for temporary files.
    """
    return check_listing(survey(source), source, on_progress)


def check_listing(listing: Listing, source: Path, on_progress: Progress | None = None) -> Checkup:
    """Look at pictures that are listed already.

    Args:
        listing: of `source`, changed by an overlay or not.
        source: the folder or table.
        on_progress: as above.

    Raises:
        StorageError: where there is no room for temporary files.
    """
    paths = [sample.path for sample in listing.samples]
    collection = Collection(listing, examine(paths, on_progress), source)
    found = sort_findings(list(_findings(collection, on_progress)))
    findings, proposal = propose(collection, found)
    return Checkup(
        source=source,
        folder=collection.folder,
        pictures=dict(Counter(collection.splits)),
        classes=listing.classes,
        findings=findings,
        proposal=proposal,
    )


def _findings(collection: Collection, on_progress: Progress | None) -> Iterator[Finding]:
    yield from _ignored(collection.listing)
    yield from file_findings(collection)
    yield from class_findings(collection)
    yield from group_findings(collection)
    copies = find_copies(collection, on_progress)
    yield from copy_findings(collection, copies)
    yield from shortcut_findings(collection, copies)


def _ignored(listing: Listing) -> Iterator[Finding]:
    """Files that listing passed over, and pictures among them."""
    system = [path for path in listing.ignored if path.name.lower() in _SYSTEM_FILES]
    others = [path for path in listing.ignored if path.name.lower() not in _SYSTEM_FILES]
    hidden = [path for path in others[:_LOOKED_INTO] if _is_hidden_picture(path)]
    for path in hidden:
        detail = "a picture by its content, passed over for its name"
        yield Finding("ignored", (path,), detail, "warning")
    if unread := tuple(filter(is_unread, others)):
        detail = f"{counted(len(unread), 'photograph')} in a format that isn't read"
        yield Finding("ignored", unread, detail, "warning")
    passed = {*hidden, *unread}
    rest = [path for path in others if path not in passed]
    if rest:
        detail = f"{counted(len(rest), 'file')} not named like a picture, or outside all classes"
        yield Finding("ignored", tuple(rest), detail, "note")
    if system:
        detail = f"{counted(len(system), 'file')} that a file browser left"
        yield Finding("ignored", tuple(system), detail, "note")


def _is_hidden_picture(path: Path) -> bool:
    if path.suffix.lower() in EXTENSIONS or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return picture_format(file.read(16)) not in (None, "BMP", "TIFF")
    except OSError:
        return False
