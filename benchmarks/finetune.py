"""Fine-tuning a pretrained ViT on a person's pictures: ours and what people use instead.

    GOMP_SPINCOUNT=1000 python benchmarks/finetune.py SOURCE --weights W.safetensors \
        --preprocess half --out benchmarks/results/DATE_finetune-WHAT --minutes 25 --seeds 0 1 2

Each contender begins with the same file, sees the same pictures, and has the whole machine for the
same wall-clock minutes from the start of its process, one after another; the order turns round
from seed to seed. Ours decodes, plans, trains, scores and writes its report within them; a peer
loads its model and pictures, measures its pace and trains, and is scored behind them. All choose
weights by balanced accuracy on SOURCE/valid and are scored on SOURCE/test where there is one, else
on SOURCE/valid. The variable is what the command `vitreous` sets for itself; the peers get it too.
Each run writes a file of its own, and one that is there already is not run again; at the end
`README.md` and `curves.svg` are written. It needs timm, transformers and accelerate.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from finetune_ours import Climb, add_options, asked_for, run_alone
from finetune_page import write_page
from picture_links import count_splits, labels_of, link_pictures, read_splits
from result_files import Job, OtherWork, machine, run_missing, score_looks, tempered

from vitreous.core.files import read_json
from vitreous.data.folder import Listing

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contender:
    """One of those that are compared.

    Args:
        name: of its files.
        title: of its row.
        what: it is, in a sentence.
        tune: of ours, which rungs are climbed; ``None`` for a peer.
    """

    name: str
    title: str
    what: str
    tune: str | None = None


CONTENDERS = (
    Contender(
        "ours",
        "ours: vitreous train --weights",
        "climbs the ladder (a new head, low-rank updates, all weights) and keeps the simplest rung "
        "within one standard error of the best; its answer is the mean over a picture and its "
        "mirror image.",
        "ladder",
    ),
    Contender(
        "ours-full", "ours, --tune full", "the same with all weights alone behind the head.", "full"
    ),
    Contender("ours-probe", "ours, --tune probe", "the same with a new head alone.", "probe"),
    Contender(
        "timm-script",
        "timm's train.py",
        "the parts of timm (data set, loader, transforms, optimiser, schedule, loss) put together "
        "as its training script does, at the script's own defaults, which were made for training "
        "from nothing: SGD with rate 0.1 for 256 pictures, batches of 128 (fewer where there are "
        "not so many pictures), label smoothing, float32; its schedule of 300 epochs with 5 of "
        "warm-up is squeezed into the minutes.",
    ),
    Contender(
        "transformers-script",
        "transformers' example script",
        "Trainer with the transforms of run_image_classification.py and the settings of the "
        "command in its README: AdamW with rate 2e-5, linear to 0, batches of 8, float32; as many "
        "epochs as fit instead of 5.",
    ),
    Contender(
        "plain-224",
        "plain loop, AdamW 1e-4",
        "timm's model in a loop of one's own: torchvision's random crop and flip, AdamW with rate "
        "1e-4, bfloat16 autocast, cosine to 0.",
    ),
)


@dataclass(frozen=True)
class Setting:
    """What all contenders have in common.

    Args:
        folder: pictures below split and class.
        listing: of that folder.
        weights: the pretrained file.
        checkpoint: the same as a folder for transformers.
        preprocess: how the weights' pictures were prepared, as `vitreous train` is told.
        model: what timm calls the model.
        minutes: for each run.
    """

    folder: Path
    listing: Listing
    weights: Path
    checkpoint: Path
    preprocess: str
    model: str
    minutes: float

    @property
    def scored_split(self) -> str:
        """Test where there is one."""
        splits = {sample.split for sample in self.listing.samples}
        return "test" if "test" in splits else "valid"


def run(
    contender: Contender, setting: Setting, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and score a contender; the result, and the probabilities that it was made from."""
    others = OtherWork()
    with tempfile.TemporaryDirectory() as folder:
        train = train_peer if contender.tune is None else train_ours
        trained, probabilities = train(contender, setting, seed, Path(folder))
    others_cores = others.cores()
    listing = setting.listing
    labels = labels_of(listing, setting.scored_split)
    probabilities = tempered(probabilities, labels)
    seen = trained["epochs"] * count_splits(listing.samples)["train"]
    result = {
        "name": contender.name,
        "title": contender.title,
        "what": contender.what,
        "seed": seed,
        "date": date.today().isoformat(),
        "machine": machine("timm", "transformers"),
        "others_cores": others_cores,
        **trained,
        "pictures_per_s": round(seen / trained["seconds"], 1),
        "scored": setting.scored_split,
        "scores": score_looks(probabilities, labels, listing.classes),
    }
    return result, {"probabilities": probabilities, "labels": labels}


def train_peer(
    contender: Contender, setting: Setting, seed: int, folder: Path
) -> tuple[dict[str, Any], np.ndarray]:
    """Let a peer train in a process of its own."""
    is_transformers = contender.name == "transformers-script"
    told = {
        "peer": contender.name,
        "folder": str(setting.folder),
        "weights": str(setting.checkpoint if is_transformers else setting.weights),
        "model": setting.model,
        "seed": seed,
        "budget_s": 60 * setting.minutes,
        "started": time.time(),
        "out": str(folder / "trained"),
    }
    run_alone([HERE / "finetune_peers.py", json.dumps(told)], folder / "cache")
    trained = read_json(folder / "trained.json")
    with np.load(folder / "trained.npz") as arrays:
        return {**trained, "mirrors": False}, arrays["probabilities"]


def train_ours(
    contender: Contender, setting: Setting, seed: int, folder: Path
) -> tuple[dict[str, Any], np.ndarray]:
    """Let the product train as a person would."""
    assert contender.tune is not None
    length = ("--budget", f"{60 * setting.minutes:g}s")
    climb = Climb(setting.folder, setting.weights, setting.preprocess, length, contender.tune, seed)
    climbed = climb.run(folder)
    given = climbed.answers(climbed.run.best, setting.listing, setting.scored_split)
    return climbed.result(), given


def main() -> None:
    """Run the contenders that are missing, then write what there is."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    parser.add_argument(
        "--model", default="vit_tiny_patch16_224", help="timm's name. [vit_tiny_patch16_224]"
    )
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    known = {one.name: one for one in CONTENDERS}
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=known, default=list(known))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    samples = read_splits(arguments.source, arguments.limit)
    asked = {**asked_for(arguments, samples), "model": arguments.model}
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(
            folder=Path(folder) / "pictures",
            listing=link_pictures(samples, Path(folder) / "pictures"),
            weights=arguments.weights.absolute(),
            checkpoint=Path(folder) / "checkpoint",
            preprocess=arguments.preprocess,
            model=arguments.model,
            minutes=arguments.minutes,
        )
        if "transformers-script" in arguments.only:
            from finetune_transformers import write_checkpoint

            setting.checkpoint.mkdir()
            write_checkpoint(setting.weights, setting.model, setting.checkpoint)
        jobs = [Job(name, asked, partial(run, known[name], setting)) for name in arguments.only]
        failed = run_missing(jobs, arguments.seeds, arguments.out)
    write_page(arguments.out)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
