"""The benchmark that can lose: ViTs and ResNets on the same pictures with the same time.

    GOMP_SPINCOUNT=1000 python benchmarks/accuracy.py EMOTIONS \
        --out benchmarks/results/DATE_accuracy --minutes 25 --seeds 0 1 2

trains the contenders one after another, from nothing, each with the whole machine for the same
wall-clock time from behind the decoding of the pictures (probing, training and validation
included), and scores them on EMOTIONS/valid. The order turns round from seed to seed. "ours" is
what `vitreous train` does by default; the lecture's model is trained by the product too, the others
by `accuracy_loop`. The variable is what the command `vitreous` sets for itself. Each run writes a
file of its own, and one that is there already is not run again; at the end `README.md` and
`curves.svg` are written.

    --ours NAME:train.ema=0,model.depth=4      ours with other settings, as a further contender
    --ablations                                ours, and ours without one thing after another
    --votes                                    all learn the votes in EMOTIONS/labels.csv
"""

import argparse
import csv
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_loop import train_peer
from accuracy_page import write_page
from accuracy_peers import PEERS, TUNINGS, Peer
from accuracy_products import ABLATIONS, LECTURE, OURS, Product, parse_ours, train_product
from result_files import Job, OtherWork, run_missing, score_looks, tempered
from torch import nn

from vitreous.core.config import merge
from vitreous.core.memory import keep_freed_memory
from vitreous.data.config import DataConfig
from vitreous.data.dataset import Dataset, open_dataset
from vitreous.data.folder import list_labelled
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess
from vitreous.evaluation.inference import TorchNetwork, predict_set
from vitreous.recipes.configure import configure
from vitreous.training.device import choose_device, describe_device

Contender = Product | Peer

#: Class by class, the column of FER+ that counts who chose it.
VOTES = {"angry": "votes_anger", "happy": "votes_happiness", "sad": "votes_sadness"}

DEFAULT: tuple[Contender, ...] = (LECTURE, *PEERS, OURS)


def open_pictures(contender: Contender, source: Path, seed: int) -> Dataset:
    """The pictures at the contender's size, decoded: what comes before the clock starts."""
    listing = list_labelled(source)
    if isinstance(contender, Peer):
        return open_dataset(listing, DataConfig(str(source)), contender.preprocess, seed)
    choice = configure(source, listing, changes=contender.settings, **contender.choices)
    config = choice.config
    return open_dataset(listing, config.data, config.preprocess, seed)


def predict(model: nn.Module, preprocess: Preprocess, pictures: PictureSet) -> np.ndarray:
    """Probabilities of the pictures and of their mirror images.

    Shape:
        -> (2, pictures, classes)
    """
    pixels = np.asarray(pictures.pixels[pictures.rows])
    mirrored = replace(
        pictures, pixels=np.ascontiguousarray(pixels[:, :, ::-1]), rows=np.arange(len(pixels))
    )
    model.to(choose_device("auto"))
    both = (pictures, mirrored)
    once = replace(preprocess, mirror=False)
    return np.stack([predict_set(TorchNetwork(model), one, once) for one in both])


def run(
    contender: Contender, source: Path, seed: int, minutes: float
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and score a contender; the result, and the probabilities that it was made from.

    Scored are the test pictures where the source has some, else the validation pictures.
    """
    dataset = open_pictures(contender, source, seed)
    others = OtherWork()
    if isinstance(contender, Product):
        trained = train_product(contender, source, seed, 60 * minutes)
    else:
        trained = train_peer(contender, dataset, seed, 60 * minutes)
    others_cores = others.cores()
    split = "test" if "test" in dataset.sets else "valid"
    scored = dataset.sets[split]
    labels = scored.labels.numpy()
    probabilities = {
        name: tempered(predict(model, trained.preprocess, scored), labels)
        for name, model in (("kept", trained.kept), ("last", trained.last))
    }
    seen = trained.epochs * len(dataset.sets["train"])
    result = {
        "name": contender.name,
        "title": contender.title,
        "told": contender.told if isinstance(contender, Product) else "",
        "seed": seed,
        "split": split,
        "keeps": trained.keeps,
        "machine": f"{describe_device(choose_device('auto'))}, torch {torch.__version__}",
        "others_cores": others_cores,
        "parameters": sum(weight.numel() for weight in trained.kept.parameters()),
        "image_size": list(trained.preprocess.image_size),
        "steps": trained.steps,
        "epochs": round(trained.epochs, 3),
        "seconds": round(trained.seconds, 1),
        "pictures_per_s": round(seen / trained.seconds, 1),
        "scores": {
            weights: score_looks(both, labels, dataset.classes)
            for weights, both in probabilities.items()
        },
        "curve": trained.curve,
        "settings": trained.settings,
    }
    return result, {**probabilities, "labels": labels}


def write_table(source: Path, folder: Path, limit: int | None, votes: bool) -> Path:
    """A table of the pictures.

    Args:
        source: their folder.
        folder: where the table goes.
        limit: the first so many of each class and split; ``None`` for all.
        votes: with the FER+ annotators' votes in the source's `labels.csv`.
    """
    found: dict[str, dict[str, str]] = {}
    if votes:
        with (source / "labels.csv").open(newline="", encoding="utf-8") as file:
            found = {row["image"]: row for row in csv.DictReader(file)}
    counts: dict[tuple[str | None, str | None], int] = {}
    table = folder / "pictures.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ["path", "label", "split"]
        writer.writerow(head + [f"votes_{name}" for name in VOTES if votes])
        for sample in list_labelled(source).samples:
            key = (sample.split, sample.label)
            counts[key] = counts.get(key, 0) + 1
            if limit is not None and counts[key] > limit:
                continue
            row = [sample.path, sample.label, sample.split]
            if votes:
                its = found[sample.path.relative_to(source).as_posix()]
                row += [its[column] for column in VOTES.values()]
            writer.writerow(row)
    return table


def make_job(contender: Contender, source: Path, name: str, asked: dict[str, Any]) -> Job:
    """A contender's runs.

    Args:
        contender: who learns.
        source: the pictures, or a table of them.
        name: of the pictures, for whoever reads the results.
        asked: what all contenders are asked.
    """

    def run_seed(seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        result, arrays = run(_with_targets(contender, asked), source, seed, asked["minutes"])
        return {**result, "source": name}, arrays

    return Job(contender.name, {**asked, **asked_of(contender)}, run_seed)


def _with_targets(contender: Contender, asked: dict[str, Any]) -> Contender:
    """The product has to be told to learn the votes; the peers do where there are any."""
    if isinstance(contender, Peer) or not asked["votes"]:
        return contender
    return replace(contender, settings=merge(contender.settings, {"train": {"soft_labels": True}}))


def asked_of(contender: Contender) -> dict[str, Any]:
    """What of a contender decides its result."""
    if isinstance(contender, Product):
        return {"choices": contender.choices, "settings": contender.settings}
    return {"peer": contender.settings()}


def main() -> None:
    """Run the contenders that are missing, then draw what there is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("emotions", type=Path, help="folder with train/ and valid/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--ours",
        type=parse_ours,
        action="append",
        default=[],
        metavar="NAME:KEY=VALUE,...",
        help="ours with other settings, as a further contender",
    )
    parser.add_argument(
        "--ablations", action="store_true", help="ours, and ours without one thing after another"
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", help="contenders, by name")
    parser.add_argument("--limit", type=int, help="pictures of each class and split, for a try")
    parser.add_argument(
        "--votes",
        action="store_true",
        help="all learn the shares of the annotators in EMOTIONS/labels.csv, not the label alone",
    )
    parser.add_argument(
        "--flip-test",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the tables are of pictures and mirror images together",
    )
    parser.add_argument(
        "--reference", default="ours", metavar="NAME", help="whom the others are held against"
    )
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does; for all contenders
    known = {one.name: one for one in (*DEFAULT, *TUNINGS, *ABLATIONS)}
    if taken := [one.name for one in arguments.ours if one.name in known]:
        parser.error(f"{taken[0]} is the name of another contender")
    known |= {one.name: one for one in arguments.ours}
    names = arguments.only
    if names is None:
        usual = (OURS, *ABLATIONS) if arguments.ablations else DEFAULT
        names = [one.name for one in (*usual, *arguments.ours)]
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no contender {', '.join(unknown)}: there are {', '.join(known)}")
    splits = {sample.split for sample in list_labelled(arguments.emotions).samples}
    if not {"train", "valid"} <= splits:
        parser.error(f"{arguments.emotions} needs the folders train and valid")
    arguments.out.mkdir(parents=True, exist_ok=True)
    limit, votes = arguments.limit, arguments.votes
    asked = {"minutes": arguments.minutes, "limit": limit, "votes": votes}
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.emotions.absolute()
        pictures = source.name
        if limit or votes:
            source = write_table(source, Path(folder), limit, votes)
        jobs = [make_job(known[name], source, pictures, asked) for name in names]
        failed = run_missing(jobs, arguments.seeds, arguments.out)
    write_page(arguments.out, arguments.flip_test, arguments.reference)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
