"""What `finetune.py` found: who wins, with and without ours' mirror images, and the curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import REFERENCE, RESAMPLES, Row, compare, draw_curves, read_rows, spread
from finetune_ours import command_of

from vitreous.core.files import write_text


def write_page(out: Path) -> None:
    """Write `README.md` and `curves.svg` beside the results that are there."""
    rows = read_rows(
        out,
        lambda result, arrays: {
            "own": arrays["probabilities"].mean(0)
            if result["mirrors"]
            else arrays["probabilities"][0],
            "plain": arrays["probabilities"][0],
            "flip": arrays["probabilities"].mean(0),
        },
    )
    if not rows:
        return
    rows.sort(key=lambda row: -np.mean(_scores(row, "own", "balanced_accuracy")))
    draw_curves(rows, out / "curves.svg")
    write_text(out / "README.md", _page(rows))


def _score(run: dict[str, Any], kind: str) -> dict[str, Any]:
    """Of a run's pictures "plain", with mirror images ("flip"), or as it answers ("own")."""
    if kind == "own":
        kind = "flip" if run["mirrors"] else "plain"
    return run["scores"][kind]


def _scores(row: Row, kind: str, name: str) -> list[float]:
    return [_score(run, kind)[name] for run in row.runs]


def _page(rows: Sequence[Row]) -> str:
    runs = [run for row in rows for run in row.runs]
    asked = runs[0]["asked"]
    if any(run["asked"] != asked for run in runs):
        raise SystemExit("the results were asked for differently: keep each table in its own --out")
    seeds = " ".join(map(str, sorted({run["seed"] for run in runs})))
    counts = ", ".join(f"{count:,} {split}" for split, count in asked["pictures"].items())
    others = [run["others_cores"] for run in runs if run["others_cores"] is not None]
    shared = f"{min(others):.1f} to {max(others):.1f}" if others else "unknown"
    only = " **A try with few pictures, which says nothing.**" if asked["limit"] else ""
    chosen = (
        " All choose weights on the pictures that they are scored on, and gain a little by that."
        if runs[0]["scored"] == "valid"
        else ""
    )
    return "\n".join(
        [
            f"# Fine-tuning with equal time: {asked['source']}",
            "",
            command_of(
                "finetune.py",
                asked,
                f"--model {asked['model']} --seeds {seeds} "
                f"--only {' '.join(sorted(row.name for row in rows))}",
            ),
            "",
            f"Every contender began with the same weights and had the same pictures ({counts}) for "
            f"{asked['minutes']:g} minutes from the start of its process, one after another. "
            "The peers keep the weights that validated best by balanced accuracy; ours keeps its "
            "last unless those are better by more than one standard error. Scored on "
            f"{len(rows[0].labels):,} {runs[0]['scored']} pictures.{chosen}{only} Mean and "
            "standard deviation over the seeds.",
            "",
            f"Machine: {'; '.join(sorted({run['machine'] for run in runs}))}. Cores that other "
            f"processes took during a run: {shared}. "
            f"{', '.join(sorted({run['date'] for run in runs}))}.",
            "",
            *_verdict(rows),
            "",
            "## As each answers",
            "",
            "Ours answers by a picture and its mirror image, which its users get without asking; "
            "the peers by the picture alone, as their users would have them. Probabilities, "
            "everybody's, are divided by the temperature that fits these pictures.",
            "",
            *_table(rows, "own"),
            "",
            "## By the picture alone",
            "",
            "The same weights, without mirror images for ours either.",
            "",
            *_table(rows, "plain"),
            "",
            "The last two columns are paired bootstraps over the pictures, "
            f"{RESAMPLES:,} resamples, seeds averaged: ours minus the contender, with the interval "
            "that holds 95 %. The intervals don't hold what another seed would change.",
            "",
            "## Recall of each class, as each answers",
            "",
            *_recalls(rows),
            "",
            *_ladders(rows),
            "## The contenders",
            "",
            *(f"- **{row.title}** ({row.name}): {row.runs[0]['what']}" for row in rows),
            "",
            "All settings stand in the JSON files.",
            "",
            *_runs(rows),
            "",
            "![Balanced accuracy on validation over minutes](curves.svg)",
            "",
            "The curves are of validation during training, without mirror images; where ours "
            "climbs a ladder, one rung's behind the other's. A thin line for each seed, a thick "
            "one for their mean.",
            "",
        ]
    )


def _verdict(rows: Sequence[Row]) -> list[str]:
    """Who wins, in words."""
    words = []
    for title, name, best in (
        ("Highest accuracy", "accuracy", max),
        ("Highest balanced accuracy", "balanced_accuracy", max),
        ("Lowest negative log-likelihood", "loss", min),
    ):
        mean, row = best(
            ((float(np.mean(_scores(row, "own", name))), row) for row in rows),
            key=lambda pair: pair[0],
        )
        words.append(f"{title}: {row.title} ({mean:.3f}).")
    lines = [f"**{' '.join(words)}**"]
    ours = _ours(rows)
    if ours is None or len(rows) == 1:
        return lines
    lines += ["", "Ours, as it answers and by the picture alone:", ""]
    for row in rows:
        if row is not ours:
            own, plain = (
                compare(ours.right[kind], row.right[kind], row.labels) for kind in ("own", "plain")
            )
            lines.append(
                f"- against {row.title}: accuracy {own['accuracy'].verdict} "
                f"(picture alone: {plain['accuracy'].verdict}), balanced accuracy "
                f"{own['balanced_accuracy'].verdict} (picture alone: "
                f"{plain['balanced_accuracy'].verdict})"
            )
    return lines


def _ours(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.name == REFERENCE), None)


def _table(rows: Sequence[Row], kind: str) -> list[str]:
    lines = [
        "| contender | accuracy | balanced | NLL | ours minus it: accuracy | "
        "ours minus it: balanced |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    ours = _ours(rows)
    for row in rows:
        names = ("accuracy", "balanced_accuracy", "loss")
        cells = [spread(_scores(row, kind, name)) for name in names]
        if ours is None or row is ours:
            cells += ["", ""]
        else:
            found = compare(ours.right[kind], row.right[kind], row.labels)
            cells += [str(found["accuracy"]), str(found["balanced_accuracy"])]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def _recalls(rows: Sequence[Row]) -> list[str]:
    classes = list(_score(rows[0].runs[0], "own")["recall"])
    lines = [f"| contender | {' | '.join(classes)} |", f"| --- |{' --- |' * len(classes)}"]
    for row in rows:
        of_runs = [_score(run, "own")["recall"] for run in row.runs]
        cells = [spread([recall[name] for recall in of_runs]) for name in classes]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def _ladders(rows: Sequence[Row]) -> list[str]:
    """The ladders that ours climbed, as they were seen on validation."""
    ours = _ours(rows)
    if ours is None:
        return []
    lines = [
        "## The ladders that ours climbed",
        "",
        "On validation, by the picture alone.",
        "",
        "| seed | rung | accuracy | balanced | seconds | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for run in ours.runs:
        for rung in run["ladder"]["rows"]:
            kept = "kept" if rung["name"] == run["ladder"]["kept"] else ""
            lines.append(
                f"| {run['seed']} | {rung['what']} | {rung['accuracy']['value']:.3f} | "
                f"{rung['balanced_accuracy']['value']:.3f} | {rung['seconds']:.0f} | {kept} |"
            )
    return [*lines, ""]


def _runs(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| contender | seeds | px | parameters | epochs | steps | pictures a second | seconds | "
        "validations |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        first = row.runs[0]
        cells = [
            ", ".join(str(run["seed"]) for run in row.runs),
            "x".join(map(str, first["image_size"])),
            f"{first['parameters'] / 1e6:.2f} M",
            f"{np.mean([run['epochs'] for run in row.runs]):.1f}",
            *(f"{np.mean([run[name] for run in row.runs]):.0f}" for name in
              ("steps", "pictures_per_s", "seconds")),
            f"{np.mean([len(run['curve']) for run in row.runs]):.0f}",
        ]  # fmt: skip
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines
