"""What `accuracy.py` found, without the scored pictures that training has near-copies of.

    python benchmarks/near_copies.py EMOTIONS benchmarks/results/DATE_accuracy

looks for copies as `vitreous check` does (`doctor.copies`: also mirrored, scaled, cropped or in
other colours) among EMOTIONS' training and scored pictures, and writes `without-copies.md` beside
the results. Nobody trains anew: each contender's answers lie beside its results.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from comparison import REFERENCE, Row, compare, read_rows, spread

from vitreous.core.console import Console
from vitreous.core.files import write_text
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_dataset
from vitreous.data.folder import list_labelled
from vitreous.data.preprocess import Preprocess
from vitreous.inquiry import find_leaks


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path, help="the pictures that the results are of")
    parser.add_argument("results", type=Path, help="a folder that accuracy.py wrote")
    arguments = parser.parse_args()
    rows = read_rows(arguments.results, lambda _, arrays: {"kept": arrays["kept"].mean(0)})
    files = sorted(arguments.results.glob("*.json"))
    split = json.loads(files[0].read_text(encoding="utf-8")).get("split", "valid")
    source = arguments.source.absolute()
    preprocess = Preprocess(image_size=(48, 48))
    dataset = open_dataset(list_labelled(source), DataConfig(str(source)), preprocess, seed=0)
    if not np.array_equal(dataset.sets[split].labels.numpy(), rows[0].labels):
        raise SystemExit(f"{source} has other {split} pictures than the results")
    with Console().stages() as on_progress:
        copied = find_leaks(dataset, split, source, on_progress)
    is_new = np.ones(len(rows[0].labels), bool)
    is_new[copied] = False
    write_text(arguments.results / "without-copies.md", page(rows, is_new, split))


def page(rows: Sequence[Row], is_new: np.ndarray, split: str) -> str:
    """The table, of all scored pictures and of those that have no copy."""
    ours = next(row for row in rows if row.name == REFERENCE)
    lines = [
        "# The same without near-copies",
        "",
        "`python benchmarks/near_copies.py EMOTIONS RESULTS`",
        "",
        f"Of {len(is_new):,} {split} pictures {(~is_new).sum():,} have a copy among the training "
        "pictures, as `vitreous check` finds them. Accuracy and balanced accuracy of the weights "
        "kept, with mirror images, over all and over the others.",
        "",
        "| contender | accuracy | without copies | balanced | without copies | "
        "ours minus it: accuracy | ours minus it: balanced |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    best_first = sorted(rows, key=lambda row: -_scores(row, is_new)[1][0])
    for row in best_first:
        pairs = zip(*(_scores(row, which) for which in (is_new | True, is_new)), strict=True)
        cells = [spread(values) for pair in pairs for values in pair]
        if row is ours:
            cells += ["", ""]
        else:
            new = [replace(one, right={"kept": one.right["kept"][:, is_new]},
                           labels=one.labels[is_new]) for one in (ours, row)]  # fmt: skip
            found = compare(new[0].right["kept"], new[1].right["kept"], new[0].labels)
            cells += [str(found["accuracy"]), str(found["balanced_accuracy"])]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "The differences are those without copies.", ""])


def _scores(row: Row, which: np.ndarray) -> tuple[list[float], list[float]]:
    """Accuracy and balanced accuracy of each seed, over some of the pictures."""
    right, labels = row.right["kept"][:, which], row.labels[which]
    recalls = [right[:, labels == label].mean(1) for label in np.unique(labels)]
    return right.mean(1).tolist(), np.mean(recalls, axis=0).tolist()


if __name__ == "__main__":
    main()
