"""What a sealed file says of itself: all that is needed beside its graph to answer as a run does.

It is one JSON object, under the key "vitreous" of the file's metadata. `sealed` writes it, and
whoever opens the file reads it back; files in other programs' hands read the JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vitreous.core.config import from_mapping, to_mapping
from vitreous.core.run import versions
from vitreous.data.decode import FORMATS, OVERSAMPLING
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, WeightsError, first_line
from vitreous.evaluation.calibration import Calibration
from vitreous.evaluation.conformal import SetRule
from vitreous.evaluation.refusal import WORDS

#: Of the JSON object; raised when a reader of the former would answer otherwise.
FORMAT = 1
#: The graph's input and outputs.
PICTURE, PROBABILITIES, STRANGENESS = "picture", "probabilities", "strangeness"
#: Keys of the file's metadata.
KEY, CARD_KEY = "vitreous", "model_card"
#: Shares of the pictures whose sets can be asked for.
COVERAGES = (0.8, 0.9, 0.95, 0.99)
#: Largest difference of a probability between the file and what it was made of, and what is more
#: than the usual one.
TOLERANCE, ROUNDING = 1e-4, np.float32(1e-5)

#: How a file becomes the picture that the graph takes; see `data.decode`.
_DECODING = {
    "exif": "turned upright",
    "frame": "the first",
    "modes": {
        "palette, CMYK, grey": "converted to RGB",
        "transparency": "laid over white",
        "16 bits": "the upper eight bits",
        "32 bits": "refused",
    },
    "formats": [name.lower() for name in FORMATS],
    "oversampling": OVERSAMPLING,
}


@dataclass(frozen=True)
class SetLimits:
    """When a class belongs to a picture's set: where 1 - its probability is at most its limit.

    Args:
        limits: of each class.
        promised: whether the sets surely hold the true class as often as they should.
    """

    limits: tuple[float, ...]
    promised: bool


@dataclass(frozen=True)
class RefusalLimit:
    """When a picture is none of these: where it is stranger than the limit in any view.

    Args:
        views: the ways of looking, in the order of the output "strangeness".
        limit: a share of the person's own pictures.
        promised: whether so many of the person's own kind of pictures are surely kept.
    """

    views: tuple[str, ...]
    limit: float
    promised: bool


@dataclass(frozen=True)
class Contract:
    """What a sealed file says of itself.

    Args:
        name: of the model, for people.
        classes: names in the order of the probabilities.
        preprocess: what the graph does to a picture first.
        majority_class: index of the most frequent class in training, where that is known.
        sets: by coverage, as text; ``None`` for a model that isn't calibrated.
        refuse: ``None`` for one that can't tell what is unlike all it learned from.
        license: of the model, as its owner says.
        card: the model card, Markdown.
        precision: of its weights.
        tolerance: largest difference of a probability that was allowed when it was written.
        version: of vitreous.
    """

    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    majority_class: int | None
    sets: Mapping[str, SetLimits] | None
    refuse: RefusalLimit | None
    license: str
    card: str
    precision: str = "float32"
    tolerance: float = TOLERANCE
    version: str = field(default_factory=lambda: versions()["vitreous"])

    def to_metadata(self) -> dict[str, str]:
        """As the file carries it; the last keys are for readers that know nothing of vitreous."""
        height, width = self.preprocess.cover
        contract = {
            "format": FORMAT,
            "version": self.version,
            "name": self.name,
            "classes": self.classes,
            "majority_class": self.majority_class,
            "image_size": self.preprocess.image_size,
            "preprocess": to_mapping(self.preprocess),
            "precision": self.precision,
            "decoding": {**_DECODING, "jpeg_scaled_to_cover": [height, width]},
            "sets": self.sets and {name: to_mapping(found) for name, found in self.sets.items()},
            "refuse": self.refuse
            and to_mapping(self.refuse) | {"words": [WORDS[view] for view in self.refuse.views]},
            "tolerance": self.tolerance,
            "license": self.license,
            "card": self.card,
        }
        return {
            KEY: json.dumps(contract, ensure_ascii=False),
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "license": self.license,
            CARD_KEY: self.card,
        }

    @classmethod
    def from_metadata(cls, path: object, metadata: Mapping[str, str]) -> "Contract":
        """What `to_metadata` made.

        Args:
            path: of the file, for messages.
            metadata: the file's, by key.

        Raises:
            WeightsError: where there is none, or it is damaged or of a later version.
        """
        if KEY not in metadata:
            raise WeightsError(
                f"{path} is no sealed file of vitreous: it says nothing of its classes and "
                "thresholds; make one with vitreous export RUN --out NEW.onnx"
            )
        try:
            said = json.loads(metadata[KEY])
            if said["format"] != FORMAT:
                raise WeightsError(
                    f"{path} has format {said['format']}, this version reads {FORMAT}: update "
                    f"vitreous (the file was written by {said['version']})"
                )
            words = ("name", "license", "card", "precision", "version")
            classes = tuple(map(str, said["classes"]))
            if len(set(classes)) < len(classes):
                raise ValueError("two of its classes have one name")
            return cls(
                **{word: str(said[word]) for word in words},
                classes=classes,
                preprocess=from_mapping(Preprocess, said["preprocess"]),
                majority_class=_read_majority(said.get("majority_class"), len(classes)),
                sets=_read_sets(said["sets"], len(classes)),
                refuse=_read_refusal(said["refuse"]),
                tolerance=float(said["tolerance"]),
            )
        except (
            ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError,
        ) as error:  # fmt: skip
            raise WeightsError(
                f"what {path} says of itself is damaged: {first_line(error)}"
            ) from None

    def rule(self, coverage: float, where: object) -> SetRule:
        """When a class belongs to a set.

        Raises:
            ConfigError: for a coverage that the file doesn't carry, naming those it does.
        """
        if self.sets is None:
            raise ConfigError(
                f"{where} isn't calibrated, so it has no sets: calibrate what it was made of "
                "(vitreous calibrate), and export that anew"
            )
        found = {float(share): limits for share, limits in self.sets.items()}.get(coverage)
        if found is None:
            raise ConfigError(
                f"{where} carries sets for {', '.join(self.sets)}, not for {coverage:g}"
            )
        limits = np.array(found.limits, np.float32)
        return SetRule(coverage, limits, counts=(), promised=(found.promised,))


def limits_of(
    calibration: Calibration | None, num_classes: int
) -> tuple[dict[str, SetLimits] | None, RefusalLimit | None]:
    """What a calibration says of sets and of refusing."""
    if calibration is None:
        return None, None
    sets = {}
    for coverage in COVERAGES:
        rule = calibration.scores.rule(coverage, num_classes)
        kept = all(rule.promised) and calibration.untouched
        # The picture that set a limit lies on it, and stays inside however it is rounded; no limit
        # at all is one that every class keeps.
        limits = np.minimum(rule.limits + ROUNDING, np.float32(1)).tolist()
        sets[f"{coverage:g}"] = SetLimits(tuple(limits), kept)
    refusal = calibration.refusal
    if refusal is None:
        return sets, None
    # As the graph gives it, so that what is just not refused stays so.
    limit = float(np.float32(refusal.limit))
    kept = refusal.promised and calibration.untouched
    return sets, RefusalLimit(tuple(refusal.views), limit, kept)


def without_promises(
    sets: Mapping[str, SetLimits] | None, refuse: RefusalLimit | None
) -> tuple[dict[str, SetLimits] | None, RefusalLimit | None]:
    """The same limits for answers that aren't those they were calibrated on."""
    plain = None
    if sets is not None:
        plain = {share: replace(limits, promised=False) for share, limits in sets.items()}
    return plain, refuse and replace(refuse, promised=False)


def _read_sets(said: Any, num_classes: int) -> dict[str, SetLimits] | None:
    if said is None:
        return None
    sets = {share: from_mapping(SetLimits, found) for share, found in said.items()}
    if not all(0 < float(share) < 1 for share in sets):
        raise ValueError("a set covers a share between 0 and 1")
    if any(len(found.limits) != num_classes for found in sets.values()):
        raise ValueError("a set has a limit for each class")
    return sets


def _read_majority(said: Any, num_classes: int) -> int | None:
    if said is not None and said not in range(num_classes):
        raise ValueError(f"class {said!r} is none of {num_classes}")
    return said


def _read_refusal(said: Any) -> RefusalLimit | None:
    if said is None:
        return None
    known = {key: value for key, value in said.items() if key != "words"}
    found = from_mapping(RefusalLimit, known)
    if unknown := [view for view in found.views if view not in WORDS]:
        raise ValueError(f"unknown view '{unknown[0]}'")
    return found
