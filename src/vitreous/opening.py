"""The pictures of a run or of a question, opened with progress and a word on what is left out."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from os import PathLike
from pathlib import Path

import numpy as np

from vitreous.core.config import load_toml
from vitreous.core.console import Console
from vitreous.core.files import read_json
from vitreous.core.run import RunFolder, run_of
from vitreous.data.dataset import (
    Dataset,
    as_it_was,
    open_dataset,
    open_unlabelled,
    path_as_text,
    read_split_table,
)
from vitreous.data.folder import Listing, list_labelled, list_unlabelled
from vitreous.data.left_out import tell_left_out
from vitreous.data.loader import PictureSet, is_blank
from vitreous.data.overlay import read_overlay
from vitreous.data.remote import source_path
from vitreous.data.stream import StreamedPixels
from vitreous.data.table import VOTES
from vitreous.errors import DataError, RunError
from vitreous.training.config import RunConfig

#: From the pictures that a score is most honest on; "" is no split.
SPLIT_ORDER = ("test", "valid", "", "calibration", "train")


def open_pictures(listing: Listing, config: RunConfig, console: Console) -> Dataset:
    """Decode and divide the pictures, with progress and with a word on what is left out."""
    with console.stages() as on_progress:
        open_source = open_unlabelled if config.pretrain else open_dataset
        dataset = open_source(
            listing, config.data, config.preprocess, config.train.seed, on_progress
        )
    for part in dataset.sets.values():
        warn_unreadable(part, console)
    if isinstance(dataset.pixels.array, StreamedPixels):
        console.info(
            f"the cache has room for {dataset.pixels.array.num_kept} of {len(dataset.splits)} "
            "pictures (data.max_cache_gb): the others are decoded whenever they are seen"
        )
    for name in listing.dropped:
        console.warn(f"the overlay drops every picture of class '{name}': no model will know it")
    tell_left_out(listing.ignored, console)
    if config.train.soft_labels and dataset.sets["train"].votes is None:
        wanted = ", ".join(f"{VOTES}{name}" for name in listing.classes)
        raise DataError(
            f"train.soft_labels is true, but {config.data.source} doesn't have annotators' votes "
            f"for every class: name a table with the columns {wanted}"
        )
    return dataset


def with_cache(config: RunConfig, cache: str | PathLike[str] | None) -> RunConfig:
    """The same with another folder of decoded pictures, where one is named."""
    if cache is None:
        return config
    return replace(config, data=replace(config.data, cache_dir=str(Path(cache).absolute())))


def open_own_pictures(folder: RunFolder, config: RunConfig, console: Console) -> Dataset:
    """The pictures that a run began with; what came to them since is left out.

    Raises:
        DataError: where their place has none any more.
        RunError: where one of them is gone, or has another label or other pixels.
    """
    listing, before = _listed_again(folder, config), read_split_table(folder.split)
    own = as_it_was(listing, before)
    if count := len(listing.samples) - len(own.samples):
        console.warn(
            f"{count:,} of the pictures in {config.data.source} came after {folder.path} began: "
            "left out"
        )
    dataset = open_pictures(own, config, console)
    known = read_json(folder.data)
    if not isinstance(known, dict) or known.get("fingerprint") != dataset.fingerprint():
        changed = _changes(own, before)
        raise RunError(
            f"the pictures in {config.data.source} are not those that {folder.path} began with "
            f"({changed}): put them back as they were, or train anew with another --out"
        )
    return dataset


def _listed_again(folder: RunFolder, config: RunConfig) -> Listing:
    source = Path(config.data.source)
    try:
        if config.pretrain:
            return list_unlabelled(source)
        # The run's own copy, wherever its folder is now.
        overlay = read_overlay(folder.overlay) if config.data.overlay else None
        return list_labelled(source, overlay)
    except DataError as error:
        raise DataError(
            f"{error}; if the pictures have moved, write their place into data.source in "
            f"{folder.config}"
        ) from None


def _changes(listing: Listing, before: Sequence[dict[str, str]]) -> str:
    """How pictures differ from those of a `split.csv`, in words."""
    now = [path_as_text(sample.path) for sample in listing.samples]
    known = [row["path"] for row in before]
    new, gone = sorted(set(now) - set(known)), sorted(set(known) - set(now))
    words = [
        f"{len(paths):,} {what}, such as {paths[0]}"
        for paths, what in ((new, "new"), (gone, "gone"))
        if paths
    ]
    return "; ".join(words) or "some have changed, or their labels"


def choose_split(
    there: set[str], wanted: str | None, where: Path, order: Sequence[str] = SPLIT_ORDER
) -> str:
    """The split asked for, or the first that is there; "" is no split."""
    name = next((name for name in order if name in there), "") if wanted is None else wanted
    if name not in there:
        names = ", ".join(sorted(there - {""})) or "no splits"
        asked = f"'{name}'" if name else f"{' or '.join(filter(None, order))}"
        raise DataError(f"{where} has no {asked} pictures: it has {names}")
    return name


def warn_unreadable(pictures: PictureSet, console: Console) -> None:
    """Name each file that can't be decoded."""
    for path, reason in pictures.unreadable:
        console.warn(f"{path}: {reason}; left out")


def list_split(
    data: Path, split: str | None, order: Sequence[str] = SPLIT_ORDER
) -> tuple[Listing, str]:
    """The pictures of one split of a folder or table, and its name."""
    listing = list_labelled(data)
    there = {sample.split or "" for sample in listing.samples}
    name = choose_split(there, split, data, order)
    chosen = tuple(sample for sample in listing.samples if (sample.split or "") == name)
    return replace(listing, samples=chosen), name


@dataclass(frozen=True)
class Known:
    """Pictures that are not new to a model; as text, a sentence that can go on.

    Args:
        run: that has seen them, in words.
        labelled: whether it has seen their labels, too; pretraining has not.
        paths: of them.
        total: pictures that were asked about.
    """

    run: str
    labelled: bool
    paths: tuple[Path, ...]
    total: int

    def __str__(self) -> str:
        did = "has learned from" if self.labelled else "was pretrained on"
        more = " or was chosen by them" if self.labelled else ", without their labels"
        return (
            f"{self.run} {did} {len(self.paths)} of these {self.total} pictures{more}, such as "
            f"{self.paths[0]}"
        )


def learned_from(
    paths: Sequence[Path],
    weights: Path,
    splits: Sequence[str] = ("train", "valid"),
    read: Sequence[PictureSet] = (),
) -> Known | None:
    """Which pictures a run, or one that it began with, has learned from or was chosen by.

    A picture is known again by its path, and in another place by its pixels, where it is read as
    it was then: a JPEG that comes smaller for a smaller model, or one that was packed, is not. Nor
    is one of a single colour, which many videos begin with.

    Args:
        paths: of the pictures.
        weights: a file of the run; of any other nothing is known.
        splits: of those runs that count.
        read: the pictures, where they have been read.

    Returns:
        What the first of those runs that knows some knows; ``None`` where none does.
    """

    @cache
    def place(path: Path) -> Path:  # a folder may be reached by links, or by way of ".."
        return Path(os.path.realpath(path))

    for run, who, labelled in _lineage(weights):
        rows = [row for row in read_split_table(run.split) if row["split"] in splits]
        known = {_real(Path(row["path"]), place) for row in rows}
        pixels = {row.get("pixels", "") for row in rows} - {""}
        copies = {
            part.paths[at]
            for part in read
            for at, fingerprint in enumerate(part.fingerprints)
            if fingerprint in pixels and not is_blank(np.asarray(part.pixels[part.rows[at]]))
        }
        old = [path for path in paths if path in copies or _real(source_path(path), place) in known]
        if old:
            return Known(who, labelled, tuple(old), len(paths))
    return None


def tell_unknown(weights: Path, console: Console) -> None:
    """Say of weights without their run that nobody here knows what they have learned from."""
    if run_of(weights) is None:
        console.info(
            "which pictures these weights have learned from isn't known here (the folder of their "
            "run would tell): make sure that it was others than these"
        )


def _real(path: Path, place: Callable[[Path], Path]) -> str:
    """A picture's own path in the words of `split.csv`, whichever links lead to it."""
    path = place(path.parent) / path.name
    return path_as_text(place(path) if path.is_symlink() else path)


def _lineage(weights: Path) -> Iterator[tuple[RunFolder, str, bool]]:
    """A run and those that it goes back to, each with that in words, and whether it saw labels.

    Nothing is known of weights that came without their run.
    """
    seen: set[Path] = set()
    first = None
    while weights.exists() and (run := run_of(weights)) and run.path not in seen:
        seen.add(run.path)
        first = first or run.path
        settings = load_toml(run.config) if run.config.exists() else {}
        who = f"{run.path}" if run.path == first else f"{run.path}, which {first} goes back to,"
        yield run, who, "pretrain" not in settings
        if not (init := settings.get("init")):
            return
        weights = Path(init)


def known_to_init(config: RunConfig, dataset: Dataset) -> Known | None:
    """Which pictures held back the weights that a run begins with have learned from.

    With folds, all pictures are held back once.
    """
    if not config.init:
        return None
    held_out = [
        part for name, part in dataset.sets.items() if config.folds or name in ("valid", "test")
    ]
    paths = [path for part in held_out for path in part.paths]
    return learned_from(paths, Path(config.init), ("train",), held_out)
