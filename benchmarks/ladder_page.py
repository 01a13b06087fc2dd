"""What `ladder.py` found: the rung that was kept beside the best one on held-out pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from comparison import COLORS, OURS_COLOR, spread
from finetune_ours import command_of
from matplotlib.figure import Figure
from wall_page import MUTED, STYLE

from vitreous.core.files import atomic_path, write_text

Result = dict[str, Any]

RUNG_COLORS = {"probe": COLORS[0], "lora": COLORS[1], "full": COLORS[2]}


def write_page(out: Path) -> None:
    """Write `README.md` and `rungs.svg` beside the results that are there."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.glob("*.json"))]
    if not results:
        return
    results.sort(key=lambda one: (one["size"] or np.inf, one["seed"]))
    with matplotlib.rc_context(STYLE), atomic_path(out / "rungs.svg") as staging:
        _figure(results).savefig(staging, format="svg", metadata={"Date": None})
    write_text(out / "README.md", _page(results))


def _of_size(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for one in results:
        groups.setdefault(one["name"], []).append(one)
    return groups


def _balanced(one: Result, rung: str) -> float:
    return one["held_out"][rung]["balanced_accuracy"]


def _page(results: Sequence[Result]) -> str:
    asked = results[0]["asked"]
    if any(one["asked"] != asked for one in results):
        raise SystemExit("the results were asked for differently: keep each table in its own --out")
    epochs = "" if asked["epochs"] is None else f"--epochs {asked['epochs']:g} "
    seeds = " ".join(map(str, sorted({one["seed"] for one in results})))
    held = (
        "the test pictures"
        if asked["has_test"]
        else "half of the validation pictures of each class, which were kept apart"
    )
    others = [one["others_cores"] for one in results if one["others_cores"] is not None]
    shared = f"{min(others):.1f} to {max(others):.1f}" if others else "unknown"
    counts = ", ".join(f"{count:,} {split}" for split, count in asked["pictures"].items())
    return "\n".join(
        [
            f"# Does the ladder keep the right rung? {asked['source']}",
            "",
            command_of(
                "ladder.py",
                asked,
                f"{epochs}--sizes {' '.join(_of_size(results))} --seeds {seeds}",
            ),
            "",
            f"Of {counts} pictures, for each size and seed other training pictures of each class "
            "were drawn. The ladder chose on the validation pictures. The rungs were then scored "
            f"on {held}: nothing was chosen on them. Balanced accuracy, each picture with its "
            "mirror image, as the product answers."
            f"{' **A try with few pictures, which says nothing.**' if asked['limit'] else ''}",
            "",
            f"Machine: {'; '.join(sorted({one['machine'] for one in results}))}. Cores that other "
            f"processes took during a run: {shared}. "
            f"{', '.join(sorted({one['date'] for one in results}))}.",
            "",
            *_summary(results),
            "",
            "The best rung is named after the fact, on the same pictures, so a gap holds some luck "
            "of the best: nobody could have kept that rung for a reason.",
            "",
            "## By size",
            "",
            *_sizes(results),
            "",
            "![Balanced accuracy of each rung on held-out pictures](rungs.svg)",
            "",
            "## The runs",
            "",
            *_runs(results),
            "",
        ]
    )


def _summary(results: Sequence[Result]) -> list[str]:
    worst = max(results, key=lambda one: one["gap_in_errors"])
    within = sum(_is_within(one) for one in results)
    return [
        f"**In {within} of {len(results)} runs the rung that was kept is within one standard error "
        f"of the best one ({within / len(results):.0%}). Largest gap: {worst['gap']:.3f}, "
        f"{worst['gap_in_errors']:.1f} standard errors ({worst['name']} pictures of a class, "
        f"seed {worst['seed']}: kept {worst['kept']}, best {worst['best']}).**"
    ]


def _is_within(one: Result) -> bool:
    # A single picture more is exactly one error, whichever way the two are rounded.
    return one["gap_in_errors"] <= 1.0 + 1e-9


def _sizes(results: Sequence[Result]) -> list[str]:
    lines = [
        f"| pictures of a class | runs | {' | '.join(RUNG_COLORS)} | kept | within one error | "
        "largest gap, errors |",
        f"| --- | --- |{' --- |' * (len(RUNG_COLORS) + 3)}",
    ]
    for name, runs in _of_size(results).items():
        rungs = ([_balanced(one, rung) for one in runs if rung in one["held_out"]]
                 for rung in RUNG_COLORS)  # fmt: skip
        kept = [_balanced(one, one["kept"]) for one in runs]
        within = sum(_is_within(one) for one in runs)
        cells = [
            str(len(runs)),
            *(spread(values) if values else "" for values in rungs),
            spread(kept),
            f"{within} of {len(runs)}",
            f"{max(one['gap_in_errors'] for one in runs):.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _runs(results: Sequence[Result]) -> list[str]:
    lines = [
        "| pictures of a class | seed | px | seconds | kept | best | gap | error | gap, errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in results:
        kept, best = (f"{one[key]} {_balanced(one, one[key]):.3f}" for key in ("kept", "best"))
        cells = [
            one["name"],
            str(one["seed"]),
            "x".join(map(str, one["image_size"])),
            f"{one['seconds']:.0f}",
            kept,
            best,
            f"{one['gap']:.3f}",
            f"{one['error']:.3f}",
            f"{one['gap_in_errors']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _figure(results: Sequence[Result]) -> Figure:
    """A column for each size and seed: the rungs as dots, a ring around the one that was kept."""
    figure = Figure((7, 3.6), layout="constrained")
    axes = figure.subplots()
    ticks, place = {}, 0.0
    for name, runs in _of_size(results).items():
        ticks[name] = place + (len(runs) - 1) / 2
        for one in runs:
            beside = {rung: place + 0.2 * step for step, rung in enumerate(RUNG_COLORS, start=-1)}
            for rung in one["held_out"]:
                axes.plot(beside[rung], _balanced(one, rung), "o", color=RUNG_COLORS[rung])
            axes.plot(beside[one["kept"]], _balanced(one, one["kept"]), "o", markersize=11,
                      fillstyle="none", color=OURS_COLOR)  # fmt: skip
            place += 1.0
        place += 1.0
    for rung, color in RUNG_COLORS.items():
        axes.plot([], [], "o", color=color, label=rung)
    axes.plot([], [], "o", markersize=11, fillstyle="none", color=OURS_COLOR, label="kept")
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=MUTED, alpha=0.2)
    axes.set_xlabel("training pictures of a class; a column for each seed")
    axes.set_title("Balanced accuracy on pictures that nothing was chosen on")
    figure.legend(loc="outside right upper")
    return figure
