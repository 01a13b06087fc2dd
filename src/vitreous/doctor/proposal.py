"""What would mend the findings that can be mended without looking: an overlay to be looked through.

Every line is a proposal with its reason. Where only a person can know (which of two classes is
right), both are dropped, and the reason says so.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vitreous.data.overlay import Action, Change, Groups, path_in_overlay
from vitreous.doctor.classes import plain_name
from vitreous.doctor.collection import Collection
from vitreous.doctor.findings import KINDS, Finding
from vitreous.doctor.groups import name_stem

_DROPPED = ("unreadable", "truncated", "empty", "not_a_picture", "blank", "tiny")


def propose(collection: Collection, findings: Sequence[Finding]) -> tuple[Change, ...]:
    """Changes for an overlay: one for each picture and kind of change, none beside a drop.

    A picture of two groups, a person's and that of its copies, joins them.
    """
    changes: dict[tuple[str, Action], Change] = {}
    groups = Groups()
    for change in _changes(collection, findings):
        first = changes.setdefault((change.path, change.action), change)
        if change.action == "group":
            groups.join(first.value, change.value)
    return tuple(
        replace(change, value=groups.whole(change.value)) if action == "group" else change
        for (path, action), change in changes.items()
        if action == "drop" or (path, "drop") not in changes
    )


def _changes(collection: Collection, findings: Sequence[Finding]) -> Iterator[Change]:
    rows: dict[Path, int] = {}
    for row, sample in enumerate(collection.samples):
        rows.setdefault(sample.path, row)
    parted = any(collection.splits)
    for number, finding in enumerate(findings):
        files = [(path, rows[path]) for path in dict.fromkeys(finding.files) if path in rows]
        if finding.kind in _DROPPED:
            yield from _drop(collection, files, KINDS[finding.kind].title.lower())
        elif finding.kind == "label_conflict":
            yield from _drop(collection, _disputed(collection, files), finding.detail)
        elif finding.kind == "leak":
            yield from _drop(collection, _learned(collection, files), finding.detail)
        elif finding.kind == "duplicate":
            kept = path_in_overlay(files[0][0], collection.folder)
            yield from _drop(collection, files[1:], f"same pixels as {kept}")
        elif finding.kind == "near_duplicate" and not parted:
            yield from _group(collection, files, f"copies-{number}", finding.detail)
        elif finding.kind == "group_leak" and not parted:
            for path, row in files:
                yield from _group(collection, [(path, row)], name_stem(path), "by the file's name")
        elif finding.kind == "class_names":
            yield from _rename(collection, files)


def _drop(
    collection: Collection, files: Sequence[tuple[Path, int]], reason: str
) -> Iterator[Change]:
    for path, _ in files:
        yield Change(path_in_overlay(path, collection.folder), "drop", reason=reason)


def _group(
    collection: Collection, files: Sequence[tuple[Path, int]], name: str, reason: str
) -> Iterator[Change]:
    for path, _ in files:
        yield Change(path_in_overlay(path, collection.folder), "group", name, reason)


def _disputed(collection: Collection, files: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """The copies that more than half of all contradict; without such a majority, all."""
    labels = Counter(collection.labels[row] for _, row in files)
    label, count = labels.most_common(1)[0]
    if 2 * count <= len(files):
        return files
    return [(path, row) for path, row in files if collection.labels[row] != label]


def _learned(collection: Collection, files: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """The copies that don't stand in the last split that has one: a test stays as it is."""
    last = collection.splits_of([row for _, row in files])[-1]
    return [(path, row) for path, row in files if collection.splits[row] != last]


def _rename(collection: Collection, files: list[tuple[Path, int]]) -> Iterator[Change]:
    """The name that most pictures have of those that are written almost alike."""
    sizes = Counter(collection.labels)
    for path, row in files:
        plain = plain_name(collection.labels[row])
        alike = [name for name in collection.listing.classes if plain_name(name) == plain]
        usual = max(alike, key=lambda name: sizes[name])
        yield Change(
            path_in_overlay(path, collection.folder),
            "relabel",
            usual,
            f"was '{collection.labels[row]}'",
        )
