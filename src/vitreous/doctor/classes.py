"""What is wrong with the classes as a whole: missing, small, uneven, named twice."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator

from vitreous.data.folder import nothing_to_learn
from vitreous.data.table import SPLIT_WORDS
from vitreous.doctor.collection import Collection
from vitreous.doctor.findings import Finding, counted

#: Pictures to learn from below which a class is small, and below which it is so small that little
#: can come of it.
_FEW, _VERY_FEW = 50, 10
#: Largest class to smallest, from which they are uneven, and very much so.
_UNEVEN, _VERY_UNEVEN = 3, 10
#: What may be written between two words, or not: never a minus or the middle of a range of numbers.
_BETWEEN_WORDS = re.compile(r"(?<=[^\d\s_-])[\s_-]+(?=[^\d\s_-])")


def class_findings(collection: Collection) -> Iterator[Finding]:
    """Findings about classes; only readable pictures count."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row, (split, label) in enumerate(zip(collection.splits, collection.labels, strict=True)):
        counts[split][label] += not collection.examined[row].fault
    for folder in collection.listing.empty:  # a split may have no others
        outside = folder.parent == collection.folder
        counts["" if outside else SPLIT_WORDS[folder.parent.name.lower()]][folder.name] += 0
    learned = counts.get("train") or counts.get("") or Counter()
    yield from _nothing_to_learn(collection)
    yield from _missing(collection, counts)
    yield from _names(collection)
    if learned:
        yield from _sizes({name: learned[name] for name in collection.listing.classes})


def _nothing_to_learn(collection: Collection) -> Iterator[Finding]:
    """What training refuses before it reads any picture."""
    if fault := nothing_to_learn(collection.listing, collection.source):
        yield Finding("too_little", (), fault, "error")


def _missing(collection: Collection, counts: dict[str, Counter[str]]) -> Iterator[Finding]:
    for split, found in counts.items():
        for name in collection.listing.classes:
            if not found[name]:
                where = f"in {split}" if split else f"in {collection.source}"
                detail = f"class '{name}' has no readable picture {where}"
                yield Finding("missing_class", (), detail, "error")


def _names(collection: Collection) -> Iterator[Finding]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in collection.listing.classes:
        alike[plain_name(name)].append(name)
    sizes = Counter(collection.labels)
    for names in alike.values():
        if len(names) > 1:
            # The largest keeps its name; the pictures of the others are those to change.
            usual, *others = sorted(names, key=lambda name: -sizes[name])
            paths = tuple(
                collection.path(row)
                for row, label in enumerate(collection.labels)
                if label in others
            )
            spelled = ", ".join(f"'{name}' ({sizes[name]:,})" for name in (usual, *others))
            yield Finding("class_names", paths, f"{spelled}: one class?", "warning")


def plain_name(name: str) -> str:
    """A class' name without case, and without spaces, hyphens and underscores between words.

    "-1" and "1", "10-19" and "1019", "A" and "a" stay what they are.
    """
    name = name.strip()
    if len(name) == 1:
        return name
    return _BETWEEN_WORDS.sub("", unicodedata.normalize("NFKC", name)).casefold()


def _sizes(learned: dict[str, int]) -> Iterator[Finding]:
    there = {name: count for name, count in learned.items() if count}
    for name, count in there.items():
        if count < _FEW:
            detail = f"class '{name}' has {counted(count, 'picture')} to learn from"
            yield Finding("small_class", (), detail, "warning" if count < _VERY_FEW else "note")
    if len(there) > 1:
        largest, smallest = max(there, key=there.__getitem__), min(there, key=there.__getitem__)
        ratio = there[largest] / there[smallest]
        if ratio >= _UNEVEN:
            detail = (
                f"'{largest}' has {there[largest]:,} pictures to learn from, {ratio:.3g} times as "
                f"many as '{smallest}' ({there[smallest]:,})"
            )
            yield Finding("imbalance", (), detail, "warning" if ratio >= _VERY_UNEVEN else "note")
