"""How many wrong labels are found: every tenth one flipped, and the real noise of FER2013.

    python benchmarks/labels.py EMOTIONS --out benchmarks/results/DATE_labels

EMOTIONS holds the folder `train` and `labels.csv`, with the FER+ label and the older FER2013 label
of each picture. Three sets are trained on with five folds: 3,000 drawn faces and the emotions, both
with a tenth of the labels flipped, and the emotions with their FER2013 labels, where that is one of
the three classes; there "wrong" is what FER+ calls otherwise. `--runs FOLDER` keeps the runs, and
takes those that are there. `--budget 2m --drawn-budget 1m` makes a quick try, `--only emotions` one
of the sets.
"""

import argparse
import csv
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vitreous
from vitreous.core.console import Console
from vitreous.core.files import read_json, read_tensors, write_json, write_text
from vitreous.core.run import versions
from vitreous.data.faces import write_faces
from vitreous.evaluation.intervals import proportion_interval
from vitreous.evaluation.label_errors import LabelErrors, find_label_errors
from vitreous.recipes.configure import parse_budget

FLIPPED = 0.1
FIRST = (100, 200, 500)
SETS = ("faces", "fer2013", "emotions")


@dataclass(frozen=True)
class Labelled:
    """Pictures with the labels that are given and those that are true.

    Args:
        title: what they are.
        files: the pictures.
        given, true: a class name each.
    """

    title: str
    files: Sequence[Path]
    given: Sequence[str]
    true: Sequence[str]


def flipped(labels: Sequence[str], share: float, seed: int) -> list[str]:
    """A share of the labels, drawn evenly, as one of the other classes, drawn evenly."""
    rng, classes, found = np.random.default_rng(seed), sorted(set(labels)), list(labels)
    for at in rng.choice(len(labels), round(share * len(labels)), replace=False):
        found[at] = str(rng.choice([name for name in classes if name != labels[at]]))
    return found


def drawn_faces(folder: Path) -> Labelled:
    if not (folder / "drawn").exists():
        write_faces(folder / "drawn", 1000, size=48)
    files = sorted((folder / "drawn").glob("*/*.png"))
    true = [file.parent.name for file in files]
    return Labelled("drawn faces, a tenth flipped", files, flipped(true, FLIPPED, 0), true)


def emotions(source: Path, older: bool) -> Labelled:
    """The training pictures, with FER+ labels of which some are flipped, or with FER2013 ones."""
    with (source / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    classes = {row["label"] for row in rows}
    if older:
        rows = [row for row in rows if row["fer2013_label"] in classes]
    files, true = [source / row["image"] for row in rows], [row["label"] for row in rows]
    if older:
        given = [row["fer2013_label"] for row in rows]
        return Labelled("emotions, FER2013 labels", files, given, true)
    return Labelled("emotions, a tenth flipped", files, flipped(true, FLIPPED, 0), true)


def folds_of(name: str, labelled: Labelled, budget_s: float, runs: Path) -> Path:
    """A run with folds on the given labels; one that is there is taken."""
    if not (runs / name / "folds.safetensors").exists():
        table = runs / f"{name}.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("path", "label"))
            rows.writerows(zip(labelled.files, labelled.given, strict=True))
        cache = runs / "cache"
        vitreous.train(table, runs / name, folds=5, budget_s=budget_s, cache=cache,
                       console=Console())  # fmt: skip
    return runs / name


def joint_cells(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The paper's simplest way: pictures that count for another class than their label's."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    thresholds = np.bincount(labels, own) / np.bincount(labels)
    enough = np.where(probabilities >= thresholds - 1e-6, probabilities, -1.0)
    return np.flatnonzero((enough.max(1) >= 0) & (enough.argmax(1) != labels))


def by_noise_rate(errors: LabelErrors, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The paper's "prune by noise rate": of each cell of the noise as many as it expects."""
    found: set[int] = set()
    for label, row in enumerate(errors.noise):
        mine = np.flatnonzero(labels == label)
        for other in np.flatnonzero(np.arange(len(row)) != label):
            margin = probabilities[mine, label] - probabilities[mine, other]
            found |= set(mine[np.argsort(margin, kind="stable")[: round(row[other])]].tolist())
    return np.array(sorted(found))


def measure(run: Path, labelled: Labelled) -> dict[str, Any]:
    """What the folds' answers find, held against the true labels."""
    tensors, metadata = read_tensors(run / "folds.safetensors")
    probabilities, labels = tensors["probabilities"].mean(0).numpy(), tensors["labels"].numpy()
    index = {name: number for number, name in enumerate(metadata["classes"])}
    truth = np.array([index[labelled.true[row]] for row in tensors["rows"].tolist()])
    wrong, count = labels != truth, len(labels)
    errors = find_label_errors(probabilities, labels)
    own = probabilities[np.arange(count), labels]
    margin = own - probabilities[np.arange(count), errors.suggested]
    orders = {"odds": errors.order, "margin": np.argsort(margin, kind="stable"),
              "self-confidence": np.argsort(own, kind="stable")}  # fmt: skip

    def share(chosen: np.ndarray) -> dict[str, float]:
        return vars(proportion_interval(int(wrong[chosen].sum()), len(chosen)))

    def picked(chosen: np.ndarray) -> dict[str, Any]:
        as_many = errors.order[: len(chosen)]
        hits = {"precision": chosen, "precision_of_as_many_by_odds": as_many}
        return {"pictures": len(chosen), **{k: float(wrong[v].mean()) for k, v in hits.items()},
                "recall": float(wrong[chosen].sum() / wrong.sum())}  # fmt: skip

    seconds = [fold["seconds"] for fold in read_json(run / "folds.json")["folds"]]
    return {
        "title": labelled.title,
        "pictures": count,
        "wrong": int(wrong.sum()),
        "seconds_a_fold": float(np.mean(seconds)),
        "answers_right": float((probabilities.argmax(1) == truth).mean()),
        "expected": vars(errors.expected),
        "suspects": picked(errors.suspects),
        "in_the_first_tenth": {
            name: vars(proportion_interval(int(wrong[order[: count // 10]].sum()), wrong.sum()))
            for name, order in orders.items()
        },
        "precision": {
            name: {str(n): share(order[:n]) for n in FIRST} for name, order in orders.items()
        },
        "other_ways": {
            "count for another class": picked(joint_cells(probabilities, labels)),
            "prune by noise rate": picked(by_noise_rate(errors, probabilities, labels)),
        },
    }


def page(found: dict[str, Any], command: str) -> str:
    """The tables of `README.md`."""
    sets = found["sets"]
    lines = ["# Wrong labels", "", f"`{command}`; {found['machine']}.", ""]
    lines += ["| | pictures | wrong | seconds a fold | right answers | of the wrong, in the first "
              "tenth | suspects | of them wrong | said to be wrong |",
              "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in sets:
        suspects, expected = row["suspects"], row["expected"]
        lines.append(
            f"| {row['title']} | {row['pictures']:,} | {row['wrong']:,} | "
            f"{row['seconds_a_fold']:.0f} | {row['answers_right']:.3f} | "
            f"{_shown(row['in_the_first_tenth']['odds'])} | {suspects['pictures']:,} | "
            f"{suspects['precision']:.3f} | {expected['value']:,.0f} ({expected['low']:,.0f} to "
            f"{expected['high']:,.0f}) |"
        )
    head = " | ".join(map(str, FIRST))
    lines += ["", "## Orders", ""]
    lines += ["Of the first pictures, wrong; and of the wrong, in the first tenth of all.", ""]
    lines += [f"| | order | {head} | first tenth |", f"| --- | --- | --- |{' --- |' * len(FIRST)}"]
    for row in sets:
        for name, shares in row["precision"].items():
            cells = " | ".join(_shown(shares[str(n)]) for n in FIRST)
            tenth = row["in_the_first_tenth"][name]["value"]
            lines.append(f"| {row['title']} | {name} | {cells} | {tenth:.3f} |")
    lines += ["", "## Other ways to pick suspects", "",
              "Beside each, what as many of the first by odds hold.", "",
              "| | way | pictures | wrong | as many by odds | of all wrong |",
              "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in sets:
        for way, part in row["other_ways"].items():
            lines.append(
                f"| {row['title']} | {way} | {part['pictures']:,} | {part['precision']:.3f} | "
                f"{part['precision_of_as_many_by_odds']:.3f} | {part['recall']:.3f} |"
            )
    return "\n".join([*lines, ""])


def _shown(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def main() -> None:
    """Train, measure, write the figures and a page about them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("emotions", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="27m", help="of each run on the emotions")
    parser.add_argument("--drawn-budget", default="6m", help="of the run on drawn faces")
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--runs", type=Path, help="folder for the runs; those there are taken")
    parser.add_argument("--note", default="", help="about the machine, such as that it is shared")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = arguments.runs or Path(place)
        runs.mkdir(parents=True, exist_ok=True)
        source = arguments.emotions.absolute()
        sets = []
        for name in arguments.only:
            labelled = drawn_faces(runs) if name == "faces" else emotions(source, name == "fer2013")
            budget = arguments.drawn_budget if name == "faces" else arguments.budget
            run = folds_of(name, labelled, parse_budget(budget), runs)
            sets.append(measure(run, labelled))
        provenance = read_json(run / "provenance.json")
    parts = [provenance["device"], f"torch {versions()['torch']}", arguments.note]
    machine = ", ".join(filter(None, parts))
    found = {"machine": machine, "sets": sets}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "labels.json", found)
    only = "" if len(arguments.only) == len(SETS) else f" --only {' '.join(arguments.only)}"
    command = (
        f"python benchmarks/labels.py EMOTIONS{only} --budget {arguments.budget} --drawn-budget "
        f"{arguments.drawn_budget} --out DIR"
    )
    text = page(found, command)
    write_text(arguments.out / "README.md", text)
    print(text)


if __name__ == "__main__":
    main()
