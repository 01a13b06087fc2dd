"""Which picture is for training, which for choosing, which for calibrating, which for testing.

Splits that the folder or table names are kept. Otherwise pictures are divided by class shares,
seeded, so that groups and exact duplicates never stand on two sides; blank pictures may.
"""

from collections import Counter
from collections.abc import Sequence

from vitreous.core.rng import numpy_stream
from vitreous.errors import DataError

VALID_SHARE = 0.2
_ATTEMPTS = 20


def assign_splits(
    labels: Sequence[str],
    named_splits: Sequence[str | None],
    groups: Sequence[str | None],
    fingerprints: Sequence[str],
    seed: int,
    share: float = VALID_SHARE,
    part: str = "valid",
) -> list[str]:
    """Give every picture its split.

    Pictures without a named split become training or validation pictures: a share of each class,
    or as near to it as whole groups allow, goes to validation. Where validation pictures are
    named, all pictures without a split are for training; where only training (and test) pictures
    are named, validation is taken out of training. Another part, for calibration, is taken out in
    the same way.

    Args:
        labels: class of each picture.
        named_splits: what the folder or table says, or ``None``.
        groups: name of the group of each picture, or ``None``.
        fingerprints: equal for pictures with equal pixels; "" for one that is joined to no other.
        seed: of the division.
        share: of each class that goes to validation.
        part: what to call it, if not "valid".

    Raises:
        DataError: where a class has too few pictures, or too few groups, for both sides.
    """
    splits = [split or "train" for split in named_splits]
    if part in splits:
        return splits
    linked = link_pictures(groups, fingerprints)
    elsewhere = {link for link, split in zip(linked, splits, strict=True) if split != "train"}
    members: dict[int, list[int]] = {}
    for index, link in enumerate(linked):
        if splits[index] == "train" and link not in elsewhere:
            members.setdefault(link, []).append(index)
    stream = "split" if part == "valid" else part
    for index in _choose(members, labels, seed, share, stream):
        splits[index] = part
    return splits


def _choose(
    members: dict[int, list[int]], labels: Sequence[str], seed: int, share: float, stream: str
) -> list[int]:
    """The pictures to hold back: whole groups."""
    kinds: dict[tuple[str, ...], Counter[str]] = {}  # of a million links there are few kinds
    contents = {
        link: kinds.setdefault(kind, Counter(kind))
        for link, group in members.items()
        for kind in [tuple(sorted(labels[i] for i in group))]
    }
    totals = Counter(labels[i] for group in members.values() for i in group)
    parts = Counter(label for content in contents.values() for label in content)
    for label in sorted(parts):
        if parts[label] < 2:
            raise DataError(
                f"{_named(label)} has {totals[label]} picture(s) that can't be divided: it takes "
                "at least 2 that are neither identical nor of one group, one to learn from and "
                f"one to check with; add some{', or leave it out (--overlay)' if label else ''}"
            )
    lacking = set(totals)
    # Groups of several classes may stand in each other's way in one order and not in another.
    for attempt in range(_ATTEMPTS):
        order = sorted(members)
        numpy_stream(seed, stream, attempt).shuffle(order)
        chosen = _fill(order, contents, totals, share)
        lacking = totals.keys() - {label for link in chosen for label in contents[link]}
        if not lacking:
            return [index for link in chosen for index in members[link]]
    raise DataError(
        f"{_named(min(lacking))} gets no picture held back as long as groups stay whole: name "
        "the splits yourself, by folders or in a column 'split'"
    )


def _fill(
    order: list[int], contents: dict[int, Counter[str]], totals: Counter[str], share: float
) -> list[int]:
    """Groups, in this order, that come near to the wanted share of every class."""
    wanted = {label: max(1, round(count * share)) for label, count in totals.items()}
    taken: Counter[str] = Counter()
    chosen: list[int] = []

    too_large: list[int] = []

    def take(link: int) -> None:
        chosen.append(link)
        taken.update(contents[link])

    for link in order:
        content = contents[link]
        if all(taken[label] + count <= wanted[label] for label, count in content.items()):
            take(link)
        else:
            too_large.append(link)
    # Then those that overshoot, smallest first, where a class lacks or comes nearer to its share.
    for link in sorted(too_large, key=lambda link: contents[link].total()):
        content = contents[link]
        now = sum(abs(taken[label] - wanted[label]) for label in content)
        then = sum(abs(taken[label] + n - wanted[label]) for label, n in content.items())
        lacking = any(taken[label] == 0 for label in content)
        leaves_some = all(taken[label] + n < totals[label] for label, n in content.items())
        if leaves_some and (lacking or then < now):
            take(link)
    return chosen


def _named(label: str) -> str:
    return f"class '{label}'" if label else "the folder or table"


def link_pictures(groups: Sequence[str | None], fingerprints: Sequence[str]) -> list[int]:
    """One number for all pictures joined by a shared group or by equal pixels, transitively."""
    parent = list(range(len(groups)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    by_group: dict[str, int] = {}
    by_pixels: dict[str, int] = {}
    for index, (group, fingerprint) in enumerate(zip(groups, fingerprints, strict=True)):
        if fingerprint:
            parent[root(index)] = root(by_pixels.setdefault(fingerprint, index))
        if group:
            parent[root(index)] = root(by_group.setdefault(group, index))
    return [root(index) for index in range(len(groups))]
