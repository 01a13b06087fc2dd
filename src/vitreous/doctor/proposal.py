"""What would mend the findings that can be mended without looking: an overlay to be looked through.

Every line is a proposal with its reason. Where only a person can know (which of two classes is
right), both are dropped, and the reason says so.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from vitreous.data.overlay import Action, Change, Groups, path_in_overlay
from vitreous.doctor.classes import plain_name
from vitreous.doctor.collection import Collection
from vitreous.doctor.findings import KINDS, Finding
from vitreous.doctor.groups import name_stem

#: Dropped for what they are: nothing is lost with the first, with the others something may be.
_DAMAGED, _ODD = ("unreadable", "truncated", "empty", "not_a_picture"), ("blank", "tiny")
#: Kinds whose drops may be mistakes.
_JUDGED = (*_ODD, "label_conflict", "leak")
#: Findings whose files are kept together: altered copies, and names that no split parts yet.
_ALTERED = (("near_duplicate", "warning"), ("label_conflict", "warning"))
_NAMED_ALIKE = ("group_leak", "note")
#: Largest share of all pictures that may be dropped as tiny, and of a class in one split that may
#: be dropped by judgement.
_MOST_TINY, _MOST_OF_CLASS = 0.05, 0.5


def propose(
    collection: Collection, findings: Sequence[Finding]
) -> tuple[tuple[Finding, ...], tuple[Change, ...]]:
    """Changes for an overlay: one for each picture and kind of change, none beside a drop.

    A picture of two groups, a person's and that of its copies, joins them.

    Returns:
        The findings, with a word where too much would go; the changes.
    """
    told, drops = list(findings), _all_drops(collection, findings, refused=set())
    refused: set[int] = set()
    # What isn't dropped for its label may still be a leak, which counts in its turn.
    while more := _too_much(collection, findings, drops) - refused:
        refused |= more
        drops = _all_drops(collection, findings, refused)
    for number in refused:
        detail = f"{findings[number].detail}; too many to be dropped unseen"
        told[number] = replace(findings[number], detail=detail)
    changes: dict[tuple[str, Action], Change] = {}
    groups = Groups()
    for change in _changes(collection, findings, drops):
        first = changes.setdefault((change.path, change.action), change)
        if change.action == "group":
            groups.join(first.value, change.value)
    return tuple(told), tuple(
        replace(change, value=groups.whole(change.value)) if action == "group" else change
        for (path, action), change in changes.items()
        if action == "drop" or (path, "drop") not in changes
    )


def _all_drops(
    collection: Collection, findings: Sequence[Finding], refused: Set[int]
) -> list[dict[Path, str]]:
    """The drops of each finding; of those that are refused, by their number, none."""
    found = {number: one for number, one in enumerate(findings) if number not in refused}
    wrong = {path for one in found.values() for path in _contradicted(collection, one)}
    return [
        _drops(collection, one, wrong) if number in found else {}
        for number, one in enumerate(findings)
    ]


def _drops(collection: Collection, finding: Finding, wrong: set[Path]) -> dict[Path, str]:
    """The files that are better left out for a finding, each with the reason.

    Args:
        collection: the pictures.
        finding: what was found among them.
        wrong: files that are left out because their labels are contradicted.
    """
    files = list(dict.fromkeys(finding.files))
    if finding.kind in (*_DAMAGED, *_ODD):
        return dict.fromkeys(files, KINDS[finding.kind].title.lower())
    if finding.kind == "label_conflict":
        return dict.fromkeys(_contradicted(collection, finding), finding.detail)
    if finding.kind == "leak":
        rest = [path for path in files if path not in wrong]
        return dict.fromkeys(_learned(collection, rest), finding.detail)
    if finding.kind == "duplicate":
        # A file that is listed under several classes is dropped itself.
        kept, *others = sorted(files, key=lambda path: len(_labels(collection, path)) > 1)
        return dict.fromkeys(others, f"same pixels as {path_in_overlay(kept, collection.folder)}")
    return {}


def _labels(collection: Collection, path: Path) -> set[str]:
    return {collection.labels[row] for row in collection.rows_of[path]}


def _contradicted(collection: Collection, finding: Finding) -> list[Path]:
    """The copies that more than half of all contradict; without such a majority, all.

    A file under several classes contradicts itself. Names that are written almost alike are no
    contradiction: they become one.
    """
    if finding.kind != "label_conflict" or finding.severity != "error":
        return []
    files = list(dict.fromkeys(finding.files))
    names = {path: [plain_name(collection.labels[row]) for row in collection.rows_of[path]]
             for path in files}  # fmt: skip
    counts = Counter(name for path in files for name in names[path])
    name, count = counts.most_common(1)[0]
    usual = {name} if 2 * count > counts.total() else set()
    return [path for path in files if set(names[path]) != usual]


def _learned(collection: Collection, files: Sequence[Path]) -> list[Path]:
    """The copies that don't stand in the last split that has one: a test stays as it is."""
    if not files:
        return []
    splits = {path: collection.splits_of(collection.rows_of[path]) for path in files}
    last = collection.splits_of([row for path in files for row in collection.rows_of[path]])[-1]
    return [path for path in files if last not in splits[path]]


def _too_much(
    collection: Collection, findings: Sequence[Finding], drops: Sequence[Mapping[Path, str]]
) -> set[int]:
    """The findings whose drops, all together, would take too much of all or of a class."""
    tiny = {number for number, finding in enumerate(findings) if finding.kind == "tiny"}
    found = tiny if len(tiny) > max(1, _MOST_TINY * len(collection.readable)) else set()
    judged = {
        number: {row for path in drops[number] for row in collection.rows_of[path]}
        for number, finding in enumerate(findings)
        if finding.kind in _JUDGED and number not in found
    }
    places = list(zip(collection.splits, collection.labels, strict=True))
    gone = Counter(places[row] for row in set().union(*judged.values()))
    there = Counter(places[row] for row in map(int, collection.readable))
    emptied = {place for place in gone if gone[place] > _MOST_OF_CLASS * there[place]}
    return found | {
        number
        for number, rows in judged.items()
        if not emptied.isdisjoint(places[row] for row in rows)
    }


def _changes(
    collection: Collection, findings: Sequence[Finding], drops: Sequence[Mapping[Path, str]]
) -> Iterator[Change]:
    for number, finding in enumerate(findings):
        for path, reason in drops[number].items():
            yield Change(path_in_overlay(path, collection.folder), "drop", reason=reason)
        if finding.kind == "class_names":
            yield from _rename(collection, finding.files)
        for path in finding.files:
            name = path_in_overlay(path, collection.folder)
            if (finding.kind, finding.severity) in _ALTERED:
                yield Change(name, "group", f"copies-{number}", finding.detail)
            elif (finding.kind, finding.severity) == _NAMED_ALIKE:
                yield Change(name, "group", name_stem(path), "by the file's name")


def _rename(collection: Collection, files: Sequence[Path]) -> Iterator[Change]:
    """The name that most pictures have of those that are written almost alike."""
    sizes = Counter(collection.labels)
    usual: dict[str, str] = {}
    for name in sorted(collection.listing.classes, key=lambda name: -sizes[name]):
        usual.setdefault(plain_name(name), name)
    for path in files:
        label = collection.labels[collection.rows_of[path][0]]
        name = path_in_overlay(path, collection.folder)
        yield Change(name, "relabel", usual[plain_name(label)], f"was '{label}'")
