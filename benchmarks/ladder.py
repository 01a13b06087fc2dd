"""Does the ladder keep the right rung? Every rung is scored on pictures that nothing was chosen on.

    GOMP_SPINCOUNT=1000 python benchmarks/ladder.py SOURCE --weights W.safetensors \
        --out benchmarks/results/DATE_ladder-WHAT --sizes 20 100 all --seeds 0 1 2 --epochs 10

For each size and seed, so many training pictures of each class are drawn, `vitreous train` climbs
the ladder on them, and the weights of all rungs answer for the same held-out pictures: those of
SOURCE/test where there is one, else half of SOURCE/valid (of each class, drawn once), which the
ladder then doesn't see. Told is how far the rung that was kept is behind the best one there, in
standard errors of the difference. Each run writes a file of its own, and one that is there already
is not run again; at the end `README.md` and `rungs.svg` are written.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from finetune_ours import Climb, add_options, asked_for
from ladder_page import write_page
from picture_links import count_splits, labels_of, link_pictures, read_splits
from result_files import Job, OtherWork, machine, run_missing, score

from vitreous.core.rng import numpy_stream
from vitreous.data.table import Sample
from vitreous.evaluation.choose import difference

RUNGS = ("probe", "lora", "full")


@dataclass(frozen=True)
class Setting:
    """What all runs have in common.

    Args:
        samples: with a split "test", on which nothing is chosen.
        weights: the pretrained file.
        preprocess: how the weights' pictures were prepared, as `vitreous train` is told.
        length: of a run, as its option and value.
    """

    samples: tuple[Sample, ...]
    weights: Path
    preprocess: str
    length: tuple[str, str]


def hold_out(samples: list[Sample]) -> tuple[Sample, ...]:
    """The pictures with a split "test"; where there is none, half of each class of valid."""
    if any(sample.split == "test" for sample in samples):
        return tuple(samples)
    chosen = {
        id(sample)
        for name, group in _by_class(s for s in samples if s.split == "valid").items()
        for sample in _draw(group, len(group) // 2, 0, "held out", name)
    }
    return tuple(
        replace(sample, split="test") if id(sample) in chosen else sample for sample in samples
    )


def subset(samples: Iterable[Sample], size: int | None, seed: int) -> list[Sample]:
    """So many training pictures of each class, drawn at random, and all others."""
    samples = list(samples)
    kept = [sample for sample in samples if sample.split != "train"]
    for name, group in _by_class(s for s in samples if s.split == "train").items():
        kept += group if size is None else _draw(group, size, seed, "subset", name)
    return kept


def _by_class(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(str(sample.label), []).append(sample)
    return groups


def _draw(group: list[Sample], count: int, seed: int, *keys: str) -> list[Sample]:
    order = numpy_stream(seed, *keys).permutation(len(group))[:count]
    return [group[index] for index in sorted(order)]


def run(
    size: int | None, setting: Setting, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Climb once, and score every rung on the held-out pictures."""
    others = OtherWork()
    with tempfile.TemporaryDirectory() as folder:
        samples = subset(setting.samples, size, seed)
        listing = link_pictures(samples, Path(folder) / "pictures")
        climbed = Climb(
            Path(folder) / "pictures",
            setting.weights,
            setting.preprocess,
            setting.length,
            "ladder",
            seed,
        ).run(Path(folder))
        rows = {row.name: row for row in climbed.ladder.rows if row.name in RUNGS}
        # As the product answers: the mean over a picture and its mirror image.
        answers = {
            name: climbed.answers(climbed.run.rung(name).best, listing, "test").mean(0)
            for name in rows
        }
        result, kept = climbed.result(), climbed.ladder.kept
    assert kept is not None
    labels = labels_of(listing, "test")
    held_out = {name: score(given, labels, listing.classes) for name, given in answers.items()}
    right = {name: given.argmax(1) == labels for name, given in answers.items()}
    best = max(rows, key=lambda name: (held_out[name]["balanced_accuracy"], name == kept))
    gap, error = difference(right[kept], right[best], labels)
    result |= {
        "name": _name(size),
        "size": size,
        "seed": seed,
        "date": date.today().isoformat(),
        "machine": machine(),
        "others_cores": others.cores(),
        "pictures": count_splits(samples),
        "held_out": held_out,
        "kept": kept,
        "best": best,
        "gap": gap,
        "error": error,
        # Without an error there is one picture of a class, or no difference at all.
        "gap_in_errors": gap / error if error else math.inf if gap else 0.0,
    }
    return result, {**answers, "labels": labels}


def _name(size: int | None) -> str:
    return "all" if size is None else str(size)


def _size(text: str) -> int | None:
    return None if text == "all" else int(text)


def main() -> None:
    """Climb what is missing, then write what there is."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    parser.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        default=[20, 100, None],
        help="of each class. [20 100 all]",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--epochs", type=float, help="for each run")
    length.add_argument("--minutes", type=float, help="for each run, instead")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    named = read_splits(arguments.source, arguments.limit)
    samples = hold_out(named)
    if arguments.epochs is not None:
        words = ("--epochs", f"{arguments.epochs:g}")
    else:
        words = ("--budget", f"{60 * arguments.minutes:g}s")
    setting = Setting(samples, arguments.weights.absolute(), arguments.preprocess, words)
    asked = {
        **asked_for(arguments, samples),
        "epochs": arguments.epochs,
        "has_test": "test" in count_splits(named),
    }
    jobs = [Job(_name(size), asked, partial(run, size, setting)) for size in arguments.sizes]
    failed = run_missing(jobs, arguments.seeds, arguments.out)
    write_page(arguments.out)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
