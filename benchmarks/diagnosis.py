"""Is the right cause named? Broken runs with one planted, healthy ones that should stay silent.

    python benchmarks/diagnosis.py --out benchmarks/results/DATE_diagnosis \
        [--emotions EMOTIONS] [--flowers FLOWERS]

Every run is trained by `vitreous.train` from start to report, and `vitreous.diagnose` is asked
about it without experiments, which is what the run says itself at its end, and with them. Runs that
have a row in OUT/diagnosis.json are not asked again, nor those trained again that lie in `--work`;
`--only` names some. The limits of the rules were set on other faces, of other seeds.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from result_files import machine
from stuck_runs import (
    LECTURE,
    PAST_THE_WALL,
    Pictures,
    Planted,
    broken,
    compact,
    healthy,
    plain,
)

import vitreous
from vitreous.core.config import merge
from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.data.folder import list_labelled
from vitreous.errors import TrainingError

#: The lecture's shares of the classes, 44 % happy.
LECTURED = {
    "train": {"angry": 90, "happy": 176, "sad": 131},
    "valid": {"angry": 18, "happy": 35, "sad": 26},
}


def some(source: Path, folder: Path, per_class: int) -> Path:
    """A table of the first training pictures of a folder, divided anew by training."""
    counts: dict[str, int] = {}
    rows = ["path,label"]
    for sample in list_labelled(source).samples:
        label = sample.label or ""
        counts[label] = counts.get(label, 0) + (sample.split == "train")
        if sample.split == "train" and counts[label] <= per_class:
            rows.append(f"{sample.path},{label}")
    table = folder / f"{source.name}.csv"
    write_text(table, "\n".join(rows) + "\n")
    return table


def all_runs(folder: Path, emotions: Path | None, flowers: Path | None) -> Iterator[Planted]:
    """The broken ones, then the healthy ones; one of these is made first, for its weights."""
    small = Pictures(folder, 120, 40, 32, seed=4100)
    large = Pictures(folder, 200, 40, 48, seed=4200)
    weights = folder / "runs" / "compact" / "best.safetensors"
    yield next(healthy(small, 35, None))
    yield from broken(small, 35)
    yield Planted("lecture", "collapse", "the lecture's whole model, its training, 32 px",
                  lambda: large.first("lectured", **LECTURED),
                  {"train": {"epochs": 10.0, "budget_s": None, "precision": "bfloat16"}},
                  {**LECTURE, "model": "lecture", "image_size": 32})  # fmt: skip
    yield from list(healthy(small, 35, weights))[1:]
    yield Planted("imbalanced", None, "three times as many happy faces",
                  lambda: large.first("imbalanced", {"angry": 67, "happy": 200, "sad": 67}),
                  compact(45))  # fmt: skip
    yield Planted("larger", None, "48 px, batches of 64, AdamW", large.whole,
                  compact(30, 2e-3, optimizer="adamw", batch_size=64))  # fmt: skip
    yield Planted("nine-classes", None, "three expressions, each upright, on its side, upside down",
                  lambda: large.turned(3),
                  merge(compact(35), {"augment": {"rotate_degrees": 8.0}}))  # fmt: skip
    yield Planted("mixed", None, "mixup, CutMix and erasing", small.whole,
                  merge(compact(50), {"augment": {"mix_chance": 0.4, "erase_chance": 0.2}})
                  )  # fmt: skip
    yield Planted("plain", None, "a plain ViT that tells upright faces from others",
                  lambda: small.upright(3),
                  plain(40))  # fmt: skip
    yield Planted("past-the-wall", None, "the lecture's model with the three settings of the wall",
                  lambda: small.upright(3),
                  merge({"train": {"epochs": 4.0, "budget_s": None}}, PAST_THE_WALL),
                  {**LECTURE, "image_size": 32})  # fmt: skip
    if emotions:
        yield Planted("emotions", None, "900 grey faces", lambda: some(emotions, folder, 300),
                      compact(25))  # fmt: skip
    if flowers:
        yield Planted("flowers", None, "1,500 photographs of flowers",
                      lambda: some(flowers, folder, 300), compact(25),
                      {"image_size": 48})  # fmt: skip


def make(planted: Planted, runs: Path, cache: Path) -> dict[str, Any]:
    """Train, and what is named by signals alone and with experiments."""
    path, console = runs / planted.name, Console(quiet=True)
    started = time.monotonic()
    source = planted.pictures()
    with planted.around():
        if not path.exists():
            with suppress(TrainingError):  # one is planted
                vitreous.train(source, path, settings=planted.settings, cache=cache,
                               console=console, **planted.options)  # fmt: skip
        trained = time.monotonic()
        at_end = vitreous.diagnose(path, experiments=False, console=console).to_json()
        looked = time.monotonic()
        asked = vitreous.diagnose(path, budget_s=30, console=console).to_json()
    return {
        "name": planted.name,
        "what": planted.what,
        "planted": planted.cause,
        "named": [cause["kind"] for cause in at_end["causes"]],
        "named_after_experiments": [cause["kind"] for cause in asked["causes"]],
        "seen": at_end["seen"],
        "causes": asked["causes"],
        "tried": asked["tried"],
        "train_s": round(trained - started),
        "signals_s": round(looked - trained),
        "experiments_s": round(time.monotonic() - looked),
    }


def is_right(row: dict[str, Any], key: str) -> bool:
    """Whether the planted cause is named first, or nothing where nothing was planted."""
    return row[key][:1] == ([row["planted"]] if row["planted"] else [])


def head() -> str:
    """What the table is."""
    return f"""# What is named of a run that is stuck

`python benchmarks/diagnosis.py --emotions EMOTIONS --flowers FLOWERS --out DIR`; {machine()}.

Drawn faces of 32 and 48 px, the emotions and the flowers; small models, so that each is trained
within a minute or so on one busy core (the lecture's in minutes). A broken run counts as named
rightly where the planted cause comes first, a healthy one as silent where nothing is named. The
limits of the rules were set on other faces, of other seeds
([how](../../../docs/experiments/LOG.md)); one draw of each run.
"""


def page(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| run | planted | from signals alone | after experiments | evidence of the first |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        first = row["causes"][0] if row["causes"] else {"evidence": "", "tried": ""}
        evidence = "; ".join(filter(None, (first["evidence"], first["tried"])))
        named, after = (
            ", ".join(row[key]) or "nothing" for key in ("named", "named_after_experiments")
        )
        lines.append(
            f"| {row['name']}: {row['what']} | {row['planted'] or 'nothing'} | {named} | {after} "
            f"| {evidence or row['seen']} |"
        )
    counts = []
    for key, when in (
        ("named", "at the end of a run"),
        ("named_after_experiments", "after experiments"),
    ):
        for kind, part in (
            ("broken runs named rightly", [row for row in rows if row["planted"]]),
            ("healthy runs silent", [row for row in rows if not row["planted"]]),
        ):
            right = sum(is_right(row, key) for row in part)
            counts.append(f"{kind} {when}: {right} of {len(part)}")
    return "\n".join([*lines, "", *(f"- {count}" for count in counts), ""])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--emotions", type=Path, help="folder with train/")
    parser.add_argument("--flowers", type=Path, help="folder with train/")
    parser.add_argument("--work", type=Path, help="where runs and pictures are left")
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "diagnosis.json"
    rows = json.loads(file.read_text())["runs"] if file.exists() else []
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.work or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        for planted in all_runs(folder, arguments.emotions, arguments.flowers):
            wanted = not arguments.only or planted.name in arguments.only
            if not wanted or any(row["name"] == planted.name for row in rows):
                continue
            row = make(planted, folder / "runs", folder / "cache")
            rows.append(json.loads(json.dumps(row).replace(f"{folder}/", "")))
            said = ", ".join(rows[-1]["named"]) or "nothing"
            print(f"{planted.name}: {said}; {rows[-1]['seen']}", flush=True)
            write_json(file, {"machine": machine(), "runs": rows})
    write_text(arguments.out / "README.md", f"{head()}\n{page(rows)}")


if __name__ == "__main__":
    main()
