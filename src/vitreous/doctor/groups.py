"""Persons and scenes that stand on both sides of a split, by what the table or the names say."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from vitreous.doctor.collection import Collection
from vitreous.doctor.findings import Finding, counted, listed

#: "anna_003", "scene 12-4", "ben (2)": what comes before the last number is one person or scene.
#: A number of six digits and more is no counter but the picture's own, or a date.
_SEPARATED = re.compile(r"^(?P<stem>.+?)(?:[\s_\-.]+0*\d{1,5}|\s*\(\d+\))$")
#: "Screenshot 2024-01-01 at 12.00": what telephones and programs write behind their own name.
_AT_TIME = re.compile(r"\sat\s[\d\s.:-]+([ap]m)?$", re.IGNORECASE)
#: Stems that cameras, telephones and programs give to everything.
_GENERIC = frozenset(
    ("img", "image", "images", "dsc", "dscn", "dscf", "dcim", "imgp", "pict", "pic", "picture",
     "pictures", "photo", "photos", "foto", "pxl", "mvi", "vid", "video", "frame", "screenshot",
     "scan", "untitled", "file", "sample", "train", "valid", "val", "test", "face", "crop", "copy",
     "whatsapp", "whatsappimage", "signal", "mg", "wp", "download", "unnamed", "fbimg", "received",
     "dji", "mvimg", "shutterstock", "adobestock", "istockphoto", "pexels", "pexelsphoto",
     "gettyimages", "snapchat", "screenshotfrom", "photoon")
)  # fmt: skip
#: Fewest pictures of a group, and largest share of a class that is one group.
_FEWEST, _MOST_SHARE = 2, 0.5


def group_findings(collection: Collection) -> Iterator[Finding]:
    """Groups that are parted, or that a division by chance would part."""
    yield from _by_column(collection)
    yield from _by_name(collection)


def _by_column(collection: Collection) -> Iterator[Finding]:
    members: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(collection.samples):
        if sample.group:
            members[sample.group].append(row)
    for name, rows in members.items():
        splits = collection.splits_of(rows)
        if len(splits) > 1:
            paths = tuple(collection.path(row) for row in rows)
            detail = f"group '{name}' has pictures in {listed(splits)}"
            yield Finding("group_leak", paths, detail, "error")


def _by_name(collection: Collection) -> Iterator[Finding]:
    groups = named_groups(collection)
    for name, rows in groups.items():
        splits = collection.splits_of(rows)
        if len(splits) > 1:
            paths = tuple(collection.path(row) for row in rows)
            detail = f"names that begin with '{name}' in {listed(splits)}"
            yield Finding("group_leak", paths, detail, "warning")
    # Where no split is for validation, training takes that out of what it learns from.
    undivided = {} if "valid" in collection.splits else _learned(collection, groups)
    if undivided:
        rows = [row for members in undivided.values() for row in members]
        names = ", ".join(f"'{name}'" for name in list(undivided)[:3])
        detail = (
            f"names look like {counted(len(undivided), 'group')} ({names}"
            f"{', ...' if len(undivided) > 3 else ''}); a division by chance would part them"
        )
        yield Finding("group_leak", tuple(collection.path(row) for row in rows), detail, "note")


def _learned(collection: Collection, groups: dict[str, list[int]]) -> dict[str, list[int]]:
    """What of each group is to be learned from, where that can be parted."""
    found = {name: [row for row in rows if collection.splits[row] in ("", "train")]
             for name, rows in groups.items()}  # fmt: skip
    return {name: rows for name, rows in found.items() if len(rows) >= _FEWEST}


def named_groups(collection: Collection) -> dict[str, list[int]]:
    """Rows of each person or scene that file names tell of: "anna" of `anna_003.jpg`.

    Of pictures whose group is said, names tell nothing. A stem that half of a class shares is no
    person but the class, the camera or the data set; a stem without a letter tells nothing.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row in range(len(collection.samples)):
        stem = name_stem(collection.path(row))
        if stem and not collection.samples[row].group:
            members[stem].append(row)
    sizes = Counter(collection.labels)
    classes = {_plain(name) for name in collection.listing.classes}
    found = {}
    for stem, rows in members.items():
        of_class = Counter(collection.labels[row] for row in rows)
        is_class = any(count > _MOST_SHARE * sizes[label] for label, count in of_class.items())
        if len(rows) >= _FEWEST and not is_class and _plain(stem) not in classes:
            found[stem] = rows
    return found


def name_stem(path: Path) -> str:
    """What a file's name has before its number, where that may be a person or a scene."""
    match = _SEPARATED.match(path.stem)
    stem = match["stem"].strip(" _-.") if match else ""
    words = _plain(_AT_TIME.sub("", stem))
    return stem if len(words) > 1 and words not in _GENERIC else ""


def _plain(name: str) -> str:
    """The letters alone: "IMG_2021" is named by the camera like "IMG"."""
    return "".join(filter(str.isalpha, name)).lower()
