"""Whether a faster way to compute costs accuracy: the same steps both ways, seed by seed.

    GOMP_SPINCOUNT=1000 python benchmarks/equal_steps.py EMOTIONS \
        --out benchmarks/results/DATE_equal-steps --runs RUNS --epochs 6 --seeds 0 1 2 3 4 5 6 7

trains what `vitreous train EMOTIONS --epochs 6` does by default (bfloat16 where the processor has
it) and the same in float32, or with other settings (`--other`), and scores both on EMOTIONS/valid,
pictures and mirror images together. A run stays under RUNS; one that is there already is finished
where it was cut off, and scored. At the end `README.md` is written.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from accuracy import open_pictures, predict
from accuracy_products import OURS, Product, parse_ours
from comparison import Row, compare, read_rows, spread
from result_files import Job, machine, run_missing, score
from scipy import stats

import vitreous
from vitreous.core.files import write_text
from vitreous.core.memory import keep_freed_memory
from vitreous.core.run import RunFolder
from vitreous.training.classifier import load_classifier
from vitreous.training.logbook import read_logbook

SCORES = ("accuracy", "balanced_accuracy")


def run(
    product: Product, source: Path, runs: Path, seed: int, epochs: float
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, or finish the run that is there; the result and the probabilities behind it."""
    place = runs / f"{product.name}-{epochs:g}-{seed}"
    if place.exists():
        vitreous.resume(place)
    else:
        settings = product.settings
        vitreous.train(
            source, place, epochs=epochs, seed=seed, settings=settings, **product.choices
        )
    valid = open_pictures(product, source, seed).sets["valid"]
    folder = RunFolder.open(place)
    classifier = load_classifier(folder.best)
    both = predict(classifier.model, classifier.preprocess, valid).mean(0)
    labels = valid.labels.numpy()
    last = read_logbook(folder.metrics)[-1]
    result = {
        "name": product.name,
        "title": product.title,
        "told": product.told,
        "seed": seed,
        "machine": machine(),
        "steps": last["step"],
        "seconds": round(last["seconds"], 1),
        "scores": score(both, labels, classifier.classes),
    }
    return result, {"probabilities": both, "labels": labels}


def over_seeds(differences: Sequence[float]) -> str:
    """Their mean with the interval of Student's t, 95 %: what other seeds could change."""
    mean = float(np.mean(differences))
    reach = float(stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences))
    return f"{mean:+.4f} ({mean - reach:+.4f} to {mean + reach:+.4f})"


def page(first: Row, second: Row) -> str:
    """Both ways beside each other, and their difference by seeds and by pictures."""
    seeds = [result["seed"] for result in first.runs]
    if seeds != [result["seed"] for result in second.runs]:
        raise SystemExit(f"{first.name} and {second.name} have different seeds: run the others")
    asked = first.runs[0]["asked"]
    pictures = compare(first.right["kept"], second.right["kept"], first.labels)
    machines = {one["machine"] for one in (*first.runs, *second.runs)}
    told = second.runs[0].get("told")  # results from before it was written down don't say it
    other = f" --other {quote(told)}" if told else ""
    lines = [
        "# Accuracy with equal steps",
        "",
        "`GOMP_SPINCOUNT=1000 python benchmarks/equal_steps.py EMOTIONS --out DIR --runs RUNS "
        f"--epochs {asked['epochs']:g} --seeds {' '.join(map(str, seeds))}{other}`",
        "",
        f"`vitreous train EMOTIONS --epochs {asked['epochs']:g}` and {second.title}: as many steps "
        f"on the same pictures, {len(seeds)} seeds. Scored on {len(first.labels)} validation "
        "pictures, which also had a say in which weights are kept; mean and standard deviation.",
        "",
        f"Machine: {'; '.join(sorted(machines))}.",
        "",
        "| | accuracy | balanced accuracy | seconds of training |",
        "| --- | --- | --- | --- |",
    ]
    for row in (first, second):
        values = [spread([one["scores"][name] for one in row.runs]) for name in SCORES]
        seconds = f"{np.median([one['seconds'] for one in row.runs]):.0f}"
        lines.append(f"| {row.title} | {' | '.join(values)} | {seconds} |")
    lines += ["", "| first minus second | over seeds | over pictures |", "| --- | --- | --- |"]
    for name in SCORES:
        pairs = zip(first.runs, second.runs, strict=True)
        differences = [one["scores"][name] - other["scores"][name] for one, other in pairs]
        of_seeds = over_seeds(differences)
        lines.append(f"| {name.replace('_', ' ')} | {of_seeds} | {pictures[name]} |")
    lines += [
        "",
        "Over seeds: the interval (95 %, Student's t) that other trainings could change, on these "
        "pictures. Over pictures: a bootstrap, the seeds averaged.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("emotions", type=Path, help="folder with train/ and valid/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument(
        "--other",
        type=parse_ours,
        default="float32:train.precision=float32",
        metavar="NAME:KEY=VALUE,...",
        help="the second way",
    )
    arguments = parser.parse_args()
    if len(arguments.seeds) < 2:
        parser.error("--seeds: two or more, or nothing is known about other seeds")
    keep_freed_memory()  # as the command does
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            product.name,
            {"epochs": arguments.epochs, "choices": product.choices, "settings": product.settings},
            partial(
                run, product, arguments.emotions.absolute(), arguments.runs, epochs=arguments.epochs
            ),
        )
        for product in (OURS, arguments.other)
    ]
    failed = run_missing(jobs, arguments.seeds, arguments.out)
    if failed:
        sys.exit(1)
    rows = {
        row.name: row
        for row in read_rows(arguments.out, lambda _, given: {"kept": given["probabilities"]})
    }
    write_text(arguments.out / "README.md", page(rows[OURS.name], rows[arguments.other.name]))


if __name__ == "__main__":
    main()
