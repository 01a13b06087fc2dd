"""Can the class be told without looking at the subject? Then a model will do just that.

A small forest is asked for the class from one kind of fact alone: the picture's size, how its file
was written, how well it compresses, the colours of its edge. Pictures that it is asked about it
has not learned from, and copies and groups stay on one side. What counts is, for the class that is
told best, the share of its pictures that are given it less the share of all others that are: 0 for
any guess, however frequent the class.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from vitreous.core.rng import numpy_stream
from vitreous.data.split import link_pictures
from vitreous.doctor.collection import Collection
from vitreous.doctor.copies import Copies
from vitreous.doctor.examine import Examined
from vitreous.doctor.files import pixel_kind
from vitreous.doctor.findings import Finding, Severity
from vitreous.evaluation.intervals import Interval, proportion_interval

_FOLDS = 5
#: Fewest pictures of a class to ask about, and most that are taken of all.
_FEWEST, _MOST = 20, 2500
_TREES = 30


@dataclass(frozen=True)
class Clue:
    """One kind of fact from which the class should not follow.

    Args:
        name: for a person.
        numbers: of a picture; not looked at where all pictures have the same.
        telling: difference that is worth a warning, half of it a note. What a picture shows
            decides a little of how it compresses and a good deal of its edge.
    """

    name: str
    numbers: Callable[[Examined, str], Sequence[float]]
    telling: float


def _size(picture: Examined, suffix: str) -> Sequence[float]:
    header = picture.header
    return (header.width, header.height, header.width / header.height) if header else (0, 0, 0)


def _format(picture: Examined, suffix: str) -> Sequence[float]:
    header = picture.header
    words = (header.format, pixel_kind(header), suffix) if header else ("", "", "")
    # Any number will do that is the same for the same word.
    return [float(zlib.crc32(word.encode(errors="replace"))) for word in words]


def _bytes(picture: Examined, suffix: str) -> Sequence[float]:
    header = picture.header
    area = header.width * header.height if header else 1
    return log2(picture.size_bytes + 1), log2((picture.size_bytes + 1) / area)


def _edge(picture: Examined, suffix: str) -> Sequence[float]:
    return picture.border


CLUES = (
    Clue("size", _size, 0.2),
    Clue("file type", _format, 0.2),
    Clue("bytes", _bytes, 0.4),
    Clue("edge colours", _edge, 0.5),
)


def shortcut_findings(collection: Collection, copies: Copies) -> Iterator[Finding]:
    """Clues that give the class away."""
    rows = _sample(collection)
    labels = np.array([collection.labels[row] for row in rows])
    groups = [collection.samples[row].group for row in rows]
    apart = np.array(link_pictures(groups, [str(copies.cluster[row]) for row in rows]))
    if len(set(labels)) < 2 or len(set(apart)) < _FEWEST:
        return
    for clue in CLUES:
        numbers = np.array(
            [
                clue.numbers(collection.examined[row], collection.path(row).suffix.lower())
                for row in rows
            ]
        )
        if (numbers == numbers[0]).all():
            continue
        told = told_by(numbers, labels, apart)
        if told.least > clue.telling / 2:
            severity: Severity = "warning" if told.least > clue.telling else "note"
            detail = (
                f"{clue.name} alone: {100 * told.hits.value:.0f} % of '{told.name}' and "
                f"{100 * told.false.value:.0f} % of the others are taken for '{told.name}'"
            )
            yield Finding("shortcut", (), detail, severity)


def _sample(collection: Collection) -> list[int]:
    """Rows to ask about: some of each class that has enough, of not too many classes."""
    members: dict[str, list[int]] = defaultdict(list)
    for row in map(int, collection.readable):
        if not collection.is_blank(row):
            members[collection.labels[row]].append(row)
    large = [rows for rows in members.values() if len(rows) >= _FEWEST]
    rng = numpy_stream(0, "shortcuts")
    chosen = rng.permutation(len(large))[: _MOST // _FEWEST]
    each = _MOST // max(1, len(chosen))
    return sorted(int(row) for place in chosen for row in rng.permutation(large[place])[:each])


@dataclass(frozen=True)
class Telling:
    """How well a class is told from the others.

    Args:
        name: of the class.
        hits: share of its pictures that are given it.
        false: share of the other pictures that are given it.
    """

    name: str
    hits: Interval
    false: Interval

    @property
    def least(self) -> float:
        """The difference (Youden 1950) with both 95 % intervals at their worst; chance has 0."""
        return self.hits.low - self.false.high


def told_by(numbers: np.ndarray, labels: np.ndarray, apart: np.ndarray) -> Telling:
    """The class that a few numbers tell best, of pictures that were not learned from.

    Args:
        numbers: of each picture.
        labels: its class.
        apart: equal for pictures of which none may be learned from where another is asked about.

    Shape:
        numbers: (pictures, numbers)
        labels, apart: (pictures,)
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    forest = RandomForestClassifier(
        _TREES, min_samples_leaf=3, class_weight="balanced", random_state=0
    )
    # As numbers, because the forest takes names that look like numbers for those.
    names, classes = np.unique(labels, return_inverse=True)
    answers = np.full_like(classes, -1)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    for learned, asked in folds.split(numbers, classes, apart):
        if len(asked):  # a few large groups may leave a fold without any
            forest.fit(numbers[learned], classes[learned])
            answers[asked] = forest.predict(numbers[asked])
    tellings = []
    for index, name in enumerate(names):
        mine, given = classes == index, answers == index
        hits = proportion_interval(int((mine & given).sum()), int(mine.sum()))
        false = proportion_interval(int((~mine & given).sum()), int((~mine).sum()))
        tellings.append(Telling(str(name), hits, false))
    return max(tellings, key=lambda telling: telling.least)
