"""Are the promises kept? Intervals and sets by simulation, sets and refusing on real pictures.

    python benchmarks/trust.py --out benchmarks/results/DATE_trust \
        --run RUN_A DATA_A --run RUN_B DATA_B

For each run, half of the pictures that it didn't learn from calibrate it and the other half are the
proper ones; the unrelated ones are those of the other run, also turned grey, and the drawn faces.
Without runs only what is simulated is measured. `--draws 50` makes a quick try.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_labelled
from vitreous.data.faces import write_faces
from vitreous.data.folder import Listing, list_labelled
from vitreous.evaluation.comparison import compare_answers
from vitreous.evaluation.conformal import ConformalScores
from vitreous.evaluation.intervals import Interval, mean_share_interval, proportion_interval
from vitreous.evaluation.reliability import measure_reliability
from vitreous.evaluation.score import examine_set
from vitreous.opening import choose_split
from vitreous.serving.calibrate import calibrate_on
from vitreous.serving.guard import open_guard
from vitreous.serving.predictor import open_predictor, predict_files
from vitreous.serving.runtimes import Engine
from vitreous.serving.weights import find_own_weights
from vitreous.serving.wish import Wish
from vitreous.training.classifier import read_description

COVERAGE = 0.9
#: Class sizes and recalls: even ones, a class of five, and many classes that are all right.
CLASSES = {
    "three classes of 34": ((34, 33, 33), (0.6, 0.8, 0.9)),
    "60, 30 and 10": ((60, 30, 10), (0.95, 0.8, 0.7)),
    "300, 150 and 50": ((300, 150, 50), (0.95, 0.8, 0.7)),
    "90 and 10": ((90, 10), (0.95, 0.6)),
    "95 and 5": ((95, 5), (0.95, 0.8)),
    "ten classes of 10": ((10,) * 10, (0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3)),
    "ten good classes of 10": ((10,) * 10, (0.98, 0.96) * 5),
    "a hundred classes of 10": ((10,) * 100, (0.99, 0.95, 0.9, 0.7) * 25),
    "two hundred classes of 5": ((5,) * 200, (0.9, 0.8, 0.95, 0.7) * 50),
}
#: Shares of pictures that both classifiers, the first alone and the second alone are right on.
PAIRS = {
    "often apart": (0.6, 0.15, 0.1),
    "as good": (0.8, 0.06, 0.06),
    "seldom apart": (0.9, 0.01, 0.03),
}
#: How often an answer is right that is so sure.
CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda sure: sure,
    "3 points too sure": lambda sure: sure - 0.03,
    "10 points too sure": lambda sure: sure - 0.1,
    "too sure where it is sure": lambda sure: 0.5 + 0.7 * (sure - 0.5),
    "too sure below 0.8 only": lambda sure: np.where(sure < 0.8, sure - 0.15, sure),
}


def holds(interval: Interval, truth: float) -> bool:
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


def simulate_scores(draws: int) -> dict[str, dict[str, float]]:
    """Share of simulated sets whose interval holds the true score."""
    found = {}
    for name, (sizes, recalls) in CLASSES.items():
        rng, hit = np.random.default_rng(0), np.zeros(2)
        truth = float(np.average(recalls, weights=sizes)), float(np.mean(recalls))
        for _ in range(draws):
            hits = [int(rng.binomial(n, recall)) for n, recall in zip(sizes, recalls, strict=True)]
            whole = proportion_interval(sum(hits), sum(sizes))
            hit += [holds(whole, truth[0]), holds(mean_share_interval(hits, sizes), truth[1])]
        found[name] = {"accuracy": hit[0] / draws, "balanced accuracy": hit[1] / draws}
    return found


def simulate_differences(draws: int) -> dict[str, dict[str, float]]:
    """The same of what one classifier gains over another."""
    found = {}
    for name, (both, one, other) in PAIRS.items():
        for count in (100, 1000):
            rng, hit = np.random.default_rng(0), np.zeros(2)
            for _ in range(draws):
                truth = rng.choice(["a", "b"], count, p=[0.8, 0.2])
                wrong = np.where(truth == "a", "b", "a")
                kind = rng.choice(4, count, p=[both, one, other, 1 - both - one - other])
                answers = [np.where(np.isin(kind, (0, k)), truth, wrong).tolist() for k in (1, 2)]
                compared = compare_answers((answers[0], answers[1]), truth.tolist())
                gain = other - one
                hit += [holds(compared.gain, gain), holds(compared.balanced_gain, gain)]
            shares = {"accuracy": hit[0] / draws, "balanced accuracy": hit[1] / draws}
            found[f"{name}, {count} pictures"] = shares
    return found


def simulate_reliability(draws: int) -> dict[str, dict[str, float]]:
    """The same of the calibration error."""
    found = {}
    for name, curve in CURVES.items():
        row = {}
        for count in (100, 300, 1500):
            rng, hit = np.random.default_rng(0), 0
            many = 0.62 + 0.38 * rng.beta(3, 1.2, 200_000)
            truth = float(np.abs(curve(many) - many).mean())
            for _ in range(draws):
                sure = rng.choice(many, count)
                labels = np.where(rng.random(count) < curve(sure), 0, 1)
                ece = measure_reliability(np.stack([sure, 1 - sure], axis=1), labels).ece
                hit += holds(ece, truth)
            row[f"{count} pictures"] = hit / draws
        found[name] = row
    return found


def simulate_sets(draws: int) -> dict[str, dict[str, float]]:
    """How often the promise of sets is kept, and how large a share they hold on average."""

    def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice(3, count, p=[0.6, 0.3, 0.1])
        logits = 2 * (rng.standard_normal((count, 3)) + 1.5 * np.eye(3)[labels])
        chances = np.exp(logits)
        return (chances / chances.sum(1, keepdims=True)).astype(np.float32), labels

    found = {}
    for count in (29, 100, 300, 1000):
        rng, kept, shares = np.random.default_rng(0), 0, []
        new, truth = drawn(rng, 400_000)
        for _ in range(draws):
            rule = ConformalScores.of(*drawn(rng, count)).rule(COVERAGE, 3)
            shares.append(rule.sets(new)[np.arange(len(new)), truth].mean())
            kept += shares[-1] >= COVERAGE
        row = {"promise kept": kept / draws, "share held": float(np.mean(shares))}
        found[f"calibrated on {count} pictures"] = row
    return found


def halves(listing: Listing, split: str) -> tuple[Listing, Listing]:
    """The pictures of a split in two parts, by class."""
    mine = [sample for sample in listing.samples if (sample.split or "") == split]
    mine.sort(key=lambda sample: (sample.label or "", sample.path.name))
    return tuple(replace(listing, samples=tuple(mine[at::2])) for at in (0, 1))  # type: ignore


def try_run(
    run: Path, data: Path, strangers: dict[str, list[Path]], folder: Path
) -> dict[str, Any]:
    """Calibrate a copy of a run on half of its pictures, and try it on the other half."""
    weights = Path(shutil.copy(find_own_weights(run), folder / "best.safetensors"))
    shutil.copy(run / "calibration.safetensors", folder)
    described, console = read_description(weights), Console(quiet=True)
    listing = list_labelled(data)
    split = choose_split({sample.split or "" for sample in listing.samples}, None, data)
    parts = []
    for part in halves(listing, split):
        config = DataConfig(str(data), cache_dir=str(folder / "cache"))
        parts.append(open_labelled(part, described.classes, config, described.preprocess))
    calibrate_on(weights, parts[0], "auto")
    guard = open_guard(weights, run, Wish(sets=COVERAGE, refuse=True), console)
    predictor = open_predictor(weights, Engine(), console, guard)
    plain = open_predictor(weights, Engine(), console)
    evaluation, _ = examine_set(
        plain.network, parts[1], plain.preprocess, plain.classes, None, plain.temperature
    )
    answers = [answer.to_json() for answer in predict_files(predictor, parts[1].paths)]
    truth = [described.classes[at] for at in parts[1].labels.tolist()]
    cautions = [answer for answer in answers if not answer["refused"]]
    sets = guard.rule.sets(np.array([list(a["probabilities"].values()) for a in answers]))
    held = [sets[at, described.classes.index(label)] for at, label in enumerate(truth)]
    refused = {}
    for name, files in strangers.items():
        found = [answer.to_json() for answer in predict_files(predictor, files)]
        refused[name] = interval(sum(answer["refused"] for answer in found), len(found))
    return {
        "calibrated on": len(parts[0]),
        "tried on": len(answers),
        "accuracy": vars(evaluation.accuracy),
        "proper pictures kept": interval(len(cautions), len(answers)),
        "sets hold the true class": interval(int(sum(held)), len(held)),
        "classes in a set": float(sets.sum(1).mean()),
        "refused": refused,
        "temperature": plain.temperature,
        "ece": vars(evaluation.reliability.ece),
        "ece without temperature": vars(evaluation.untempered.ece),
        "log loss": evaluation.loss,
        "log loss without temperature": evaluation.untempered.loss,
    }


def interval(hits: int, total: int) -> dict[str, float]:
    return vars(proportion_interval(hits, total))


def strangers_of(data: Path, folder: Path) -> dict[str, list[Path]]:
    """Pictures that another run has nothing to do with: as they are, and without their colours."""
    listing = list_labelled(data)
    split = choose_split({sample.split or "" for sample in listing.samples}, None, data)
    files = [part.samples for part in halves(listing, split)][1]
    grey = []
    (folder / "grey").mkdir(parents=True)
    for number, sample in enumerate(files):
        grey.append(folder / "grey" / f"{number}.png")
        Image.open(sample.path).convert("L").save(grey[-1])
    return {data.name: [sample.path for sample in files], f"{data.name}, grey": grey}


def page(found: dict[str, Any], command: str) -> str:
    """The tables of `README.md`."""
    lines = ["# Are the promises kept?", "", f"`{command}`", ""]
    titles = {
        "scores": "95 % intervals of scores: share that holds the truth",
        "differences": "95 % intervals of differences",
        "reliability": "95 % intervals of the calibration error",
        "sets": f"Sets for {100 * COVERAGE:.0f} %",
    }
    for key, title in titles.items():
        rows = found[key]
        head = list(next(iter(rows.values())))
        lines += [f"## {title}", "", f"{found['draws']:,} simulated sets a row.", ""]
        lines += [f"| | {' | '.join(head)} |", f"| --- |{' --- |' * len(head)}"]
        lines += [
            f"| {name} | {' | '.join(f'{row[key]:.3f}' for key in head)} |"
            for name, row in rows.items()
        ]
        lines.append("")
    for name, row in found.get("runs", {}).items():
        lines += [f"## The run on {name}", "", "| | |", "| --- | --- |"]
        for key, value in row.items():
            parts = value.items() if key == "refused" else [("", value)]
            for what, part in parts:
                lines.append(f"| {key}{f': {what}' if what else ''} | {_shown(part)} |")
        lines.append("")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def measure(draws: int, runs: Sequence[tuple[Path, Path]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "draws": draws,
        "scores": simulate_scores(draws),
        "differences": simulate_differences(draws),
        "reliability": simulate_reliability(draws),
        "sets": simulate_sets(draws),
    }
    if len(runs) == 2:
        found["runs"] = {}
        with tempfile.TemporaryDirectory() as place:
            drawn = {"drawn faces": write_faces(Path(place) / "drawn", 100, size=96)}
            for at, (run, data) in enumerate(runs):
                folder = Path(place) / str(at)
                others = strangers_of(runs[1 - at][1], folder)
                found["runs"][data.name] = try_run(run, data, {**others, **drawn}, folder)
    return found


def main() -> None:
    """Measure, write the figures and a page about them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", nargs=2, type=Path, action="append", default=[],
                        metavar=("RUN", "DATA"))  # fmt: skip
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    if len(arguments.run) not in (0, 2):
        parser.error("name two runs, each with its pictures, or none")
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = measure(arguments.draws, [(run, data) for run, data in arguments.run])
    write_json(arguments.out / "trust.json", found)
    names = " ".join(f"--run RUN {data.name.upper()}" for _, data in arguments.run)
    command = f"python benchmarks/trust.py --out DIR --draws {arguments.draws} {names}".rstrip()
    text = page(found, command)
    write_text(arguments.out / "README.md", text)
    print(text)
    print(json.dumps({"written": str(arguments.out)}))


if __name__ == "__main__":
    main()
