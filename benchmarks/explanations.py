r"""Explanations: do they find what decides, are they better than chance, and how long do they take?

    python benchmarks/explanations.py --weights vit.safetensors --pictures FOLDER \
        --out benchmarks/results/DATE_explanations

Planted patches: for every pooling, the share of the pictures in which the patch that decides the
class is the hottest of all. Faithfulness: on pictures from a folder, with a real model. Time: of
one explanation, in turns with a plain answer; medians.
"""

import argparse
import os
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from planted import CLASSES, POOLINGS, learned, planted_pictures

from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.data.decode import read_picture
from vitreous.data.folder import list_pictures
from vitreous.data.preprocess import Preprocess, denormalise, fit, normalise
from vitreous.evaluation.intervals import sample_interval
from vitreous.explanation.faithfulness import blur, measure
from vitreous.explanation.methods import METHOD_NAMES, Named
from vitreous.explanation.pictures import Explainer, Question, explain_pictures
from vitreous.explanation.places import to_patches
from vitreous.model.config import ModelConfig
from vitreous.model.presets import preset
from vitreous.serving.weights import find_classifier, told_by
from vitreous.training.classifier import Classifier, load_classifier

BUILDS = {
    **{pool: {"pool": pool, **needs} for pool, needs in POOLINGS.items()},
    "flatten, compact-48": {
        **{name: getattr(preset("compact-48"), name) for name in
           ("pool", "class_token", "pos_embed", "stem_blocks", "init")},
        "stem": (12, 24, 48),
    },
    "mean, registers, RoPE, QK-norm, LayerScale": {
        "pool": "mean", "num_register_tokens": 2, "pos_embed": "rope2d", "qk_norm": True,
        "layer_scale_init": 0.1,
    },
    "flatten, wide heads": {
        "pool": "flatten", "class_token": False, "head_dim": 48, "final_norm": False,
        "head_hidden": (48,), "mlp_output_activation": True,
    },
}  # fmt: skip
SIDE, PATCH, STEPS, SEEDS, PICTURES = 48, 8, 300, 3, 200


def planted() -> list[dict]:
    """Per build and method, how often the planted patch is the hottest of 36."""
    base = ModelConfig(image_size=(SIDE, SIDE), patch_size=(PATCH, PATCH), embed_dim=48, depth=4,
                       num_heads=3)  # fmt: skip
    preprocess = Preprocess((SIDE, SIDE), std=(0.2, 0.2, 0.2))  # noise and stripes fit into bytes
    rows = []
    for name, changes in BUILDS.items():
        hits = {method: [] for method in METHOD_NAMES}
        for seed in range(SEEDS):
            model = learned(replace(base, **changes), STEPS, seed)
            images, classes, places = planted_pictures(
                PICTURES, SIDE, PATCH, torch.Generator().manual_seed(1000 + seed)
            )
            pixels = denormalise(images, preprocess).numpy()
            soft = np.stack([blur(picture, (PATCH, PATCH)) for picture in pixels])
            sharp, blurred = (normalise(torch.from_numpy(x), preprocess) for x in (pixels, soft))
            with torch.no_grad():
                right = (model(sharp).argmax(1) == classes) & (classes != CLASSES.index("none"))
            for method in METHOD_NAMES:
                maps = Named(method)(model, sharp[right], blurred[right], classes[right])
                hottest = to_patches(maps, (PATCH, PATCH)).argmax(1)
                hits[method] += (hottest == places[right]).tolist()
        shares = {method: sum(found) / len(found) for method, found in hits.items()}
        rows.append({"build": name, "pictures": len(hits["relevance"]), **shares})
        print(rows[-1], flush=True)
    return rows


def faithfulness(classifier: Classifier, pictures: list[np.ndarray]) -> list[dict]:
    """Per method, what it is better than random order by; the middle of a picture beside them."""
    names = [str(number) for number in range(len(pictures))]
    found, checks = explain_pictures(classifier, names, pictures, Question(keep_all=True))
    rows = []
    for name, check in checks.items():
        measured = [each.maps[name].faithfulness for each in found]
        rows.append({
            "method": name, **check.to_json(),
            **{part: statistics.mean(getattr(one, part) for one in measured)
               for part in ("insertion", "deletion", "random")},
        })  # fmt: skip
    patch = classifier.model.config.patch_size
    grid = [np.linspace(-1, 1, side // size) for side, size in
            zip(pictures[0].shape, patch, strict=False)]  # fmt: skip
    middle = -(grid[0][:, None] ** 2 + grid[1][None] ** 2).flatten()
    explainer = Explainer(classifier)
    gains = []
    for picture in pictures:
        target = int(explainer.probabilities(picture[None]).argmax())
        (one,) = measure(
            lambda batch, target=target: explainer.probabilities(batch)[:, target],
            picture, [middle], patch, random_orders=1,
        )  # fmt: skip
        gains.append(one.gain)
    gain = sample_interval(gains, -0.5, 0.5)
    rows.append({"method": "the middle of the picture", "gain": vars(gain)})
    return rows


def seconds(classifier: Classifier, picture: np.ndarray, turns: int) -> dict[str, float]:
    """Medians for one picture: a plain answer, a map by each method, and all with their checks."""
    explainer = Explainer(classifier)
    work = {"answer": lambda: explainer.probabilities(picture[None])}
    for name in METHOD_NAMES:
        work[name] = lambda name=name: explainer.map(Named(name), picture, 0)
    work["relevance, with its faithfulness"] = lambda: explainer.maps(
        [Named("relevance")], picture, 0
    )
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(turns + 1):
        for name, do in work.items():
            started = time.perf_counter()
            do()
            if turn:  # the first is for warming up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def page(result: dict) -> str:
    lines = [
        "# Explanations", "",
        "`python benchmarks/explanations.py --weights WEIGHTS --pictures FOLDER "
        f"--count {result['pictures']} --turns {result['turns']} --out DIR`; {result['machine']}.",
        "",
        "## The patch that decides is the hottest", "",
        f"Noise of {SIDE} px in {(SIDE // PATCH) ** 2} patches, one of which has stripes that are "
        f"the class ({', '.join(CLASSES[:-1])}; a quarter of the pictures has none). {SEEDS} "
        "models a build, 4 blocks deep; share of the pictures answered rightly in which that patch "
        "has the highest mean.", "",
        f"| model | {' | '.join(METHOD_NAMES)} | pictures |", "| --- |" + " --- |" * 5,
    ]  # fmt: skip
    for row in result["planted"]:
        cells = " | ".join(f"{row[name]:.3f}" for name in METHOD_NAMES)
        lines.append(f"| {row['build']} | {cells} | {row['pictures']} |")
    lines += [
        "", "## Faithfulness", "",
        f"{result['model']}, {result['pictures']} pictures, their most probable class. Gain is the "
        "mean of what insertion is above and deletion below a random order, in probability; the "
        "interval is over the pictures.", "",
        "| order | gain | insertion | deletion | random | alike, shuffled | check |",
        "| --- |" + " --- |" * 6,
    ]  # fmt: skip
    for row in result["faithfulness"]:
        gain = "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**row["gain"])
        cells = " | | | | "
        if "insertion" in row:
            cells = " | ".join(f"{row[part]:.3f}" for part in ("insertion", "deletion", "random"))
            cells += f" | {row['alike']:.2f} | {'passed' if row['passed'] else 'failed'}"
        lines.append(f"| {row['method']} | {gain} | {cells} |")
    lines += ["", "## Time", "", "One picture, medians.", "", "| what | seconds |", "| --- | --- |"]
    lines += [f"| {name} | {value:.3f} |" for name, value in result["seconds"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True, help="A ViT-Ti/16, or another.")
    parser.add_argument("--preprocess", nargs="*", default=["half", "resize=248"])
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    told = told_by(None, arguments.preprocess, None)
    weights = find_classifier(arguments.weights, told, Console())
    classifier = load_classifier(weights)
    files = list_pictures([arguments.pictures])
    files = files[:: max(1, len(files) // arguments.count)][: arguments.count]
    pictures = [fit(read_picture(file), classifier.preprocess) for file in files]
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    result = {
        "machine": f"{platform.machine()}, {threads}, torch {torch.__version__}, float32, "
        "machine shared with others",
        "model": arguments.weights.name,
        "pictures": len(pictures),
        "turns": arguments.turns,
        "seconds": seconds(classifier, pictures[0], arguments.turns),
        "faithfulness": faithfulness(classifier, pictures),
        "planted": planted(),
    }
    write_json(arguments.out / "explanations.json", result)
    write_text(arguments.out / "README.md", page(result))
    print(page(result))


if __name__ == "__main__":
    main()
