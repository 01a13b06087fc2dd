"""An exported model on real photographs: this library, timm and transformers, each from files.

    python benchmarks/exported.py CHECKPOINT PICTURES --labels FILE --preprocess half \
        --out benchmarks/results/DATE_exported

CHECKPOINT goes out to both libraries. Then each opens, scales, crops and classifies every picture
in its own way: timm as its `create_transform` does, transformers as its pipeline does. Needs timm,
transformers and torchvision.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision_operators import name_operators

import vitreous
from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.data.folder import list_pictures

name_operators()
QUIET = Console(quiet=True)
HEAD = """\
# Exported, and asked about photographs

`python benchmarks/exported.py CHECKPOINT PICTURES --labels FILE --preprocess WORD --out DIR`: of
each picture the difference of the probability that differs most, between this library and the
other.
"""


@torch.no_grad()
def by_timm(folder: Path, files: list[Path]) -> np.ndarray:
    import timm
    from timm.data import create_transform, resolve_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    rows = []
    for file in files:
        with Image.open(file) as image:
            rows.append(model(transform(image.convert("RGB"))[None]).softmax(1)[0].numpy())  # pyright: ignore[reportCallIssue]
    return np.stack(rows)


def by_transformers(folder: Path, files: list[Path]) -> np.ndarray:
    from transformers import pipeline

    classify = pipeline("image-classification", str(folder))
    names = classify.model.config.id2label
    rows = []
    for file in files:
        scores = {row["label"]: row["score"] for row in classify(str(file), top_k=len(names))}
        rows.append([scores[names[index]] for index in range(len(names))])
    return np.array(rows)


def compare(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    apart = np.abs(ours - theirs).max(1)
    return {
        "pictures": len(apart),
        "same_label": int((ours.argmax(1) == theirs.argmax(1)).sum()),
        "within_1e-4": int((apart < 1e-4).sum()),
        "median": float(np.median(apart)),
        "largest": float(apart.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--preprocess", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = list_pictures([arguments.pictures])
    told = {"labels": arguments.labels, "preprocess": arguments.preprocess, "console": QUIET}
    answers = vitreous.predict(arguments.checkpoint, *files, **told)
    ours = np.array([list(answer["probabilities"].values()) for answer in answers])
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for to, classify in (("timm", by_timm), ("transformers", by_transformers)):
            folder = vitreous.export(arguments.checkpoint, Path(temporary) / to, to=to, **told)
            rows[to] = compare(ours, classify(folder, files))
    write_json(arguments.out / "exported.json", rows)
    write_text(arguments.out / "README.md", page(rows))
    print(page(rows))


def page(rows: dict[str, dict[str, float]]) -> str:
    lines = [
        HEAD,
        "| | pictures | same label | within 1e-4 | median | largest |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {to} | {row['pictures']} | {row['same_label']} | {row['within_1e-4']} | "
            f"{row['median']:.0e} | {row['largest']:.0e} |"
            for to, row in rows.items()
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
