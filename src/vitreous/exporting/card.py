"""The model card of a sealed file: what the model is, how good, and what it must not be used for.

After Mitchell et al. 2019, "Model Cards for Model Reporting", as far as a run knows its answers.
"""

import filecmp
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitreous.core.config import load_toml
from vitreous.core.files import read_json
from vitreous.core.run import RunFolder, run_of, versions
from vitreous.data.dataset import read_split_table
from vitreous.errors import RunError
from vitreous.exporting.contract import RefusalLimit, SetLimits
from vitreous.training.classifier import Classifier

UNKNOWN_LICENSE = "unknown: choose one"
#: Class names that are listed; a thousand would hide the rest.
_LISTED = 50
_SCORES = frozenset(("n", "accuracy", "balanced_accuracy", "per_class"))


@dataclass(frozen=True)
class RunFacts:
    """What a run's folder says of how its model came about; a file of weights alone says nothing.

    Args:
        trained_on: pictures of each class that it learned from.
        score: the content of ``evaluation.json``.
        init: the weights that it began with; "" for random ones.
    """

    trained_on: Mapping[str, int] = field(default_factory=dict)
    score: Mapping[str, Any] | None = None
    init: str = ""


def facts_of(weights: Path) -> RunFacts:
    """What the folder beside a weights file says."""
    folder, run = weights.resolve().parent, run_of(weights)
    if run is None or not run.config.is_file() or folder not in (run.path, run.rungs / folder.name):
        return RunFacts()  # a fold has learned from some of its run's pictures only
    rows = read_split_table(run.split)
    counts = Counter(row["label"] for row in rows if row["split"] == "train")
    score = None
    if folder == run.path and run.evaluation.exists() and _is_best(weights, run):
        score = read_json(run.evaluation)
        if not isinstance(score, dict) or not score.keys() >= _SCORES:
            raise RunError(f"{run.evaluation} is damaged: it has no score")
    return RunFacts(
        dict(sorted(counts.items())),
        score,
        _without_folders(str(load_toml(run.config).get("init", ""))),
    )


def _is_best(weights: Path, run: RunFolder) -> bool:
    """Whether these weights are those that the run was scored with, or a copy of them."""
    return run.best.is_file() and filecmp.cmp(weights, run.best, shallow=False)


def _without_folders(init: str) -> str:
    """A hub's id as it is; of a path the last part, since folders are nobody else's business."""
    path = Path(init)
    return path.name if path.is_absolute() or path.exists() else init


def write_card(
    name: str,
    classifier: Classifier,
    license: str,
    facts: RunFacts,
    sets: Mapping[str, SetLimits] | None,
    refuse: RefusalLimit | None,
) -> str:
    """The card, Markdown.

    Args:
        name: of the model.
        classifier: the model.
        license: as its owner says.
        facts: of its training.
        sets: the prediction sets that the file carries.
        refuse: how it tells what is none of its classes.
    """
    parts = [
        f"# {name}",
        _what_it_is(classifier),
        "## Training and score",
        _training(facts),
        _score(facts.score),
        "## How to ask it",
        _asking(classifier),
        "## How far to trust it",
        _trust(sets, refuse),
        "## What it is not for",
        _LIMITS,
        "## Licence",
        _license(license, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _what_it_is(classifier: Classifier) -> str:
    classes, config = classifier.classes, classifier.model.config
    listed = ", ".join(classes[:_LISTED])
    more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
    parameters = sum(parameter.numel() for parameter in classifier.model.parameters())
    height, width = config.image_size
    return (
        f"A classifier of pictures into {len(classes)} classes: {listed}{more}.\n\n"
        f"A Vision Transformer with {parameters:,} parameters that sees {width} x {height} px, "
        f"made with vitreous {versions()['vitreous']}. It has an answer for every picture, one of "
        "these classes, whatever the picture shows."
    )


def _training(facts: RunFacts) -> str:
    if not facts.trained_on:
        return "What it was trained on is not known: the weights came without their run."
    counts = ", ".join(f"{label} {count:,}" for label, count in facts.trained_on.items())
    listed = f" ({counts})" if len(facts.trained_on) <= _LISTED else ""
    total = sum(facts.trained_on.values())
    began = (
        f", beginning with the weights of {facts.init}" if facts.init else " from random weights"
    )
    return f"Trained on {total:,} pictures{listed}{began}."


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "How good it is has not been measured here. Do so before it is used for anything."
    rows = [
        f"- {words}: {_interval(score[key])}"
        for words, key in (("accuracy", "accuracy"), ("balanced accuracy", "balanced_accuracy"))
    ]
    recalls = [
        f"- of the {label}: "
        + (f"{_interval(part['recall'])} found" if part["support"] else "none was among them")
        for label, part in score["per_class"].items()
    ]
    split = score.get("split") or "labelled"
    chose = " They also chose the weights, so expect less of it on new ones." * (split == "valid")
    return "\n".join(
        [
            f"On {score['n']:,} {split} pictures, with 95 % intervals:{chose}",
            "",
            *rows,
            *(recalls if len(recalls) <= _LISTED else []),
            "",
            "Other cameras, other light, other people or other kinds of pictures than those are "
            "likely to be answered less well.",
        ]
    )


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _asking(classifier: Classifier) -> str:
    preprocess = classifier.preprocess
    mirror = " The mirror image is looked at too." if preprocess.mirror else ""
    return (
        "The graph takes one upright RGB picture as bytes, (height, width, 3), of any size, and "
        "gives a probability for each class. It scales the picture until it covers what the model "
        f"sees and looks at the middle of it, so what lies at the ends is not seen.{mirror} What "
        "has to be done outside: decode the file, turn the picture as its EXIF orientation says, "
        "lay transparent places over white."
    )


def _trust(sets: Mapping[str, SetLimits] | None, refuse: RefusalLimit | None) -> str:
    if sets is None:
        return (
            "It isn't calibrated: its probabilities are no promise, and it can't say that a "
            "picture is none of its classes."
        )
    promised = [share for share, found in sets.items() if found.promised]
    said = [
        "Prediction sets for "
        + ", ".join(sets)
        + " of the pictures are in the file. "
        + (
            f"Those for {', '.join(promised)} hold the true class at least so often, 95 % sure, on "
            "pictures like the ones that calibrated it."
            if promised
            else "None of them is a promise: that takes pictures used for nothing but calibrating, "
            "and answers in float32, as they were calibrated."
        )
    ]
    if refuse:
        said.append(
            "The output `strangeness` tells how unlike a picture is to those that the model "
            f"learned from; above {refuse.limit:.3g} it should be called none of these."
        )
    else:
        said.append("It can't say that a picture is none of its classes.")
    return " ".join(said)


_LIMITS = """\
- Not to decide anything about a person by itself. It is wrong at times, more often for some groups
  of people and kinds of pictures than for others; which ones has not been measured unless it says
  so above.
- Not to infer the emotions of people at work or in education: the law restricts or forbids that in
  places (in the European Union Article 5(1)(f) of Regulation 2024/1689, except for medical and
  safety reasons). A face's expression doesn't tell reliably what a person feels.
- Not to identify people, to sort them by biometric traits, or to watch them without their
  knowledge and a ground in law.
- Not for pictures of another kind than those it was trained and scored on."""


def _license(license: str, facts: RunFacts) -> str:
    unsaid = (
        "\n\nNobody has said yet under which terms this model may be passed on. Its owner chooses; "
        "the pictures it learned from may have a say."
    ) * (license == UNKNOWN_LICENSE)
    inherited = (f"\n\nThe terms of the weights it began with, {facts.init}, hold as well.") * bool(
        facts.init
    )
    return f"{license}{unsaid}{inherited}"
