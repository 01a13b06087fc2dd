"""What `accuracy.py` found: the tables with who wins, and the curves over time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote

import numpy as np
from accuracy_products import ABLATIONS
from comparison import REFERENCE, RESAMPLES, Row, compare, draw_curves, read_rows, spread

from vitreous.core.files import write_text
from vitreous.training.config import TrainConfig


def write_page(out: Path, flip: bool, reference: str = REFERENCE) -> None:
    """Write `README.md` and `curves.svg` beside the results that are there.

    Args:
        out: their folder.
        flip: whether the score is that of pictures and mirror images together.
        reference: name of the one that the others are held against.
    """
    rows = _read_rows(out, flip)
    if not rows:
        return
    draw_curves(rows, out / "curves.svg")
    write_text(out / "README.md", _page(rows, flip, reference))


def _read_rows(out: Path, flip: bool) -> list[Row]:
    """The contenders, best balanced accuracy first."""
    rows = read_rows(
        out,
        lambda _, arrays: {
            weights: arrays[weights].mean(0) if flip else arrays[weights][0]
            for weights in ("kept", "last")
        },
    )
    kind = _kind(flip)
    return sorted(rows, key=lambda row: -np.mean(_scores(row, "kept", kind, "balanced_accuracy")))


def _kind(flip: bool) -> str:
    return "flip" if flip else "plain"


def _scores(row: Row, weights: str, kind: str, name: str) -> list[float]:
    return [run["scores"][weights][kind][name] for run in row.runs]


def _page(rows: Sequence[Row], flip: bool, reference: str) -> str:
    runs = [run for row in rows for run in row.runs]
    minutes = " and ".join(f"{value:g}" for value in sorted({r["asked"]["minutes"] for r in runs}))
    limits = {run["asked"]["limit"] for run in runs}
    others = [run["others_cores"] for run in runs if run["others_cores"] is not None]
    shared = f"{min(others):.1f} to {max(others):.1f}" if others else "unknown"
    votes = {run["asked"]["votes"] for run in runs} == {True}
    # Results from before there were others don't say it.
    is_test = {run.get("split", "valid") for run in runs} == {"test"}
    targets = "the shares of the annotators' votes" if votes else "the pictures' labels"
    only = "" if limits == {None} else " **A try with few pictures, which says nothing.**"
    return "\n".join(
        [
            "# Accuracy with equal time",
            "",
            *(f"`{command}`\n" for command in _commands(rows, flip, reference)),
            f"Every contender learned {targets} from nothing, on the same pictures, for {minutes} "
            f"minutes from behind the decoding, or for {TrainConfig.epochs:g} epochs (the "
            "lecture's model: 20) where those are over sooner, one after another; ours looks for "
            "faults among them first, as it does for everybody. Scored on "
            f"{len(rows[0].labels)} {'test' if is_test else 'validation'} pictures"
            f"{', each seen as it is and mirrored' if flip else ''}.{only} "
            "Mean and standard deviation over the seeds. Everybody's probabilities are divided by "
            "the temperature that fits these pictures.",
            "",
            f"Machine: {'; '.join(sorted({run['machine'] for run in runs}))}. Cores that other "
            f"processes took during a run: {shared}.",
            "",
            *_verdict(rows, flip, reference),
            "",
            "## The weights kept",
            "",
            "Those at the end, unless those that validated best have a higher balanced accuracy on "
            "the validation pictures, answered as they are in the end, by more than one standard "
            "error of the difference: the product's rule, for every contender."
            + (
                ""
                if is_test
                else " All may gain a little from that choice, being scored on them; so may ours "
                "from its recipe, and the ResNet-18 from its settings, which were chosen by them."
            ),
            "",
            *_table(rows, "kept", flip, reference),
            "",
            "## The weights at the end",
            "",
            *_table(rows, "last", flip, reference),
            "",
            "The last two columns are paired bootstraps over the pictures, "
            f"{RESAMPLES:,} resamples, seeds averaged: ours minus the contender, with the interval "
            "that holds 95 %. The intervals don't hold what another seed would change.",
            "",
            "## The runs",
            "",
            *_runs(rows),
            "",
            "![Balanced accuracy on validation over minutes](curves.svg)",
            "",
            "The curves are of validation during training, without mirror images: the moving "
            "average of the weights, a thin line for each seed and a thick one for their mean.",
            "",
        ]
    )


def _commands(rows: Sequence[Row], flip: bool, reference: str) -> list[str]:
    """What makes these results: a command for those of equal seeds."""
    groups: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(sorted(run["seed"] for run in row.runs)), []).append(row)
    return [_command(group, seeds, flip, reference) for seeds, group in groups.items()]


def _command(rows: Sequence[Row], seeds: Sequence[int], flip: bool, reference: str) -> str:
    runs = [run for row in rows for run in row.runs]
    asked, usual = runs[0]["asked"], {one.name for one in ABLATIONS}
    # Results from before it was written down don't say what was told.
    told = sorted({run["told"] for run in runs if run.get("told") and run["name"] not in usual})
    source = runs[0].get("source", "emotions").upper()  # the older ones don't say
    parts = [f"GOMP_SPINCOUNT=1000 python benchmarks/accuracy.py {source} --out DIR"]
    parts.append(f"--minutes {asked['minutes']:g}")
    parts += [f"--ours {quote(text)}" for text in told]
    parts.append(f"--only {' '.join(sorted(row.name for row in rows))}")
    parts.append(f"--seeds {' '.join(map(str, seeds))}")
    if asked["limit"]:
        parts.append(f"--limit {asked['limit']}")
    if asked["votes"]:
        parts.append("--votes")
    if reference != REFERENCE:
        parts.append(f"--reference {reference}")
    if not flip:
        parts.append("--no-flip-test")
    return " ".join(parts)


def _verdict(rows: Sequence[Row], flip: bool, reference: str) -> list[str]:
    """Who wins, in words."""
    kind = _kind(flip)

    def leader(name: str, best: Callable[..., Row]) -> str:
        row = best(rows, key=lambda row: np.mean(_scores(row, "kept", kind, name)))
        return f"{row.title} ({np.mean(_scores(row, 'kept', kind, name)):.3f})"

    lines = [
        f"**Highest accuracy: {leader('accuracy', max)}. Highest balanced accuracy: "
        f"{leader('balanced_accuracy', max)}. Lowest negative log-likelihood: "
        f"{leader('loss', min)}.**"
    ]
    ours = next((row for row in rows if row.name == reference), None)
    if ours is None or len(rows) == 1:
        return lines
    named = "Ours" if reference == REFERENCE else f"Here `ours` is {reference}, {ours.title}. It"
    lines += ["", f"{named}, with the weights kept:", ""]
    for row in rows:
        if row is not ours:
            found = compare(ours.right["kept"], row.right["kept"], row.labels)
            lines.append(
                f"- against {row.title}: accuracy {found['accuracy'].verdict}, balanced accuracy "
                f"{found['balanced_accuracy'].verdict}"
            )
    return lines


def _table(rows: Sequence[Row], weights: str, flip: bool, reference: str) -> list[str]:
    lines = [
        "| contender | accuracy | balanced | NLL | parameters | epochs | "
        "ours minus it: accuracy | ours minus it: balanced |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours = next((row for row in rows if row.name == reference), None)
    for row in rows:
        cells = [
            spread(_scores(row, weights, _kind(flip), name))
            for name in ("accuracy", "balanced_accuracy", "loss")
        ]
        cells.append(f"{row.runs[0]['parameters'] / 1e6:.2f} M")
        cells.append(f"{np.mean([run['epochs'] for run in row.runs]):.1f}")
        if ours is None or row is ours:
            cells += ["", ""]
        else:
            found = compare(ours.right[weights], row.right[weights], row.labels)
            cells += [str(found["accuracy"]), str(found["balanced_accuracy"])]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def _runs(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| contender | seeds | px | steps | pictures a second | seconds | NLL without mirror image "
        "| validations | weights kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        first = row.runs[0]
        cells = [
            ", ".join(str(run["seed"]) for run in row.runs),
            "x".join(map(str, first["image_size"])),
            *(_rounded([run[name] for run in row.runs]) for name in
              ("steps", "pictures_per_s", "seconds")),
            spread(_scores(row, "kept", "plain", "loss")),
            _rounded([len(run["curve"]) for run in row.runs]),
            ", ".join(run["keeps"] for run in row.runs),
        ]  # fmt: skip
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def _rounded(values: Sequence[float]) -> str:
    return f"{np.mean(values):.0f}"
