"""Writing shards: the pictures of a folder or table in a few large files.

The bytes of a picture's file stay as they are, unless a size is named. Each split gets shards of
its own, its pictures in a random order, because training reads shards one behind another. Beside
each lies a table of its pictures (see `shards`), and an index beside all.

Nothing is there before all is: shards are written one after another into a hidden folder beside
their place, which is renamed when the last is whole. Packing that was stopped goes on with the
shard that it was at.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from vitreous.core.console import Console
from vitreous.core.files import (
    atomic_path,
    read_json,
    remove_unfinished,
    storage_errors,
    write_json,
    write_text,
)
from vitreous.core.rng import numpy_stream
from vitreous.data.cache import Progress, fingerprint, in_threads
from vitreous.data.config import DataConfig
from vitreous.data.dataset import path_as_text
from vitreous.data.decode import open_file, read_with_header
from vitreous.data.folder import Listing, check_beside, folder_of, list_labelled, list_unlabelled
from vitreous.data.left_out import tell_left_out
from vitreous.data.preprocess import Preprocess, fit
from vitreous.data.remote import is_remote, source_path
from vitreous.data.shard_files import SHARD_FILES
from vitreous.data.shards import COLUMNS, FORMAT, INDEX, hasher
from vitreous.data.stream import StreamedPixels
from vitreous.data.table import EXTENSIONS, SPLITS, VOTES, Entry, Sample, write_rows
from vitreous.errors import ConfigError, DataError, RunError, UnreadablePicture

#: What shards are called whose pictures are in no split yet.
UNDIVIDED = "data"
#: Pictures that are in memory at once.
_PIECE = 32
_PLAN, _LOCK = ".plan", ".lock"


@dataclass(frozen=True)
class PackConfig:
    """How pictures are packed.

    Args:
        form: "tar" for WebDataset's files, "parquet" for those of Hugging Face `datasets`.
        shard_bytes: a shard ends with the picture that reaches this size.
        size: height and width in pixels that pictures are fitted to first, as PNGs; ``None``
            leaves their files as they are.
        seed: of their order.
    """

    form: Literal["tar", "parquet"] = "tar"
    shard_bytes: int = 256_000_000
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("shard_bytes", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: it is 1 or more")


@dataclass(frozen=True)
class Packed:
    """A folder of shards.

    Args:
        path: of the folder.
        index: what its ``index.json`` says: counts, classes, shards, files left out.
    """

    path: Path
    index: dict[str, Any]

    def __str__(self) -> str:
        shards = self.index["shards"]
        size = sum(shard["bytes"] for shard in shards) / 1e9
        return (
            f"{self.path}: {self.index['pictures']} pictures in {len(shards)} shards, {size:.2f} GB"
        )


def pack(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    form: Literal["tar", "parquet"] = "tar",
    shard_mb: float = 256.0,
    size: int | None = None,
    labelled: bool = True,
    seed: int = 0,
    console: Console | None = None,
) -> Packed:
    """Write pictures into a few large files, to be trained on from here or from a url.

    Splits, classes, groups and votes are kept. Pictures that can't be read are left out and named.
    What was stopped goes on where it was when the same is packed again.

    Args:
        source: as for `train`, shards of others too.
        out: the new folder, outside the pictures.
        form: "tar" for WebDataset's files, "parquet" for those of Hugging Face `datasets`.
        shard_mb: size of a shard in MB (10^6 bytes), about.
        size: height and width in pixels that pictures are fitted to first, as PNGs; without it
            their files stay as they are.
        labelled: whether there are classes; else any folder of pictures does, as for `pretrain`.
        seed: of the pictures' order in the shards.
        console: where messages go.

    Raises:
        UserError: for pictures that can't be listed, or where something stands at `out` already.
        StorageError: where the disk is full; what is whole is kept for the next time.
    """
    console = console or Console()
    source, out = source_path(source), Path(out)
    check_beside(out, source, labelled)
    listing = list_labelled(source) if labelled else list_unlabelled(source)
    config = PackConfig(form, round(shard_mb * 1e6), size, seed)
    with console.stages() as on_progress:
        packed = pack_listing(listing, folder_of(source), out, config, on_progress)
    tell_left_out(listing.ignored, console)
    for file, reason in packed.index["unreadable"]:
        console.warn(f"{file}: {reason}; left out")
    return packed


def pack_listing(
    listing: Listing,
    folder: Path,
    out: Path,
    config: PackConfig,
    on_progress: Progress | None = None,
) -> Packed:
    """Write all readable pictures of a listing into shards.

    Args:
        listing: of `folder.list_labelled` or `list_unlabelled`.
        folder: that shards name the pictures' files from.
        out: the new folder of shards.
        config: how.
        on_progress: called with a description, the pictures done and their total.

    Raises:
        RunError: where another process packs the same.
        StorageError: where the disk is full; what is whole is kept for the next time.
    """
    staging = out.with_name(f".{out.name}-packing")
    with _locked(staging, out):
        remove_unfinished(staging)
        _keep_what_fits(staging, _plan_of(listing, config))
        packer = _Packer(listing, folder, staging, config, on_progress)
        states = [state for split in (None, *SPLITS) for state in packer.pack_split(split)]
        index = _index(listing, states)
        if not index["pictures"]:
            file, reason = index["unreadable"][0]
            raise DataError(f"none of the pictures can be read, such as {file}: {reason}")
        write_json(staging / INDEX, index)
        with storage_errors(out):
            for path in staging.glob(".*"):
                path.unlink()
            staging.rename(out)
    return Packed(out, index)


@dataclass(frozen=True)
class _Picture:
    """What goes into a shard of a picture: its file, and what is known of it."""

    suffix: str
    data: bytes
    entry: Entry


class _Packer:
    """Writes the shards of one split after another."""

    def __init__(
        self,
        listing: Listing,
        folder: Path,
        staging: Path,
        config: PackConfig,
        on_progress: Progress | None,
    ) -> None:
        self._samples, self._folder, self._staging = listing.samples, folder, staging
        self._config, self._on_progress = config, on_progress
        self._numbers = {name: number for number, name in enumerate(listing.classes)}
        self._voted = tuple(listing.samples[0].votes)
        self._done = 0

    def pack_split(self, split: str | None) -> list[dict[str, Any]]:
        """What there is to say of each shard of a split, those of an earlier sitting among them."""
        samples = [sample for sample in self._samples if sample.split == split]
        order = self._order(samples, numpy_stream(self._config.seed, "pack", split or UNDIVIDED))
        states: list[dict[str, Any]] = []
        while (path := self._state_path(split, len(states))).exists():
            states.append(read_json(path))
        begin = states[-1]["end"] if states else 0
        pictures = self._prepared([samples[row] for row in order[begin:]], begin)
        while begin < len(samples):
            state = self._write_shard(split, len(states), pictures, len(samples))
            write_json(self._state_path(split, len(states)), state)
            states.append(state)
            begin = state["end"]
        self._done += len(samples)
        return states

    def _order(self, samples: Sequence[Sample], stream: np.random.Generator) -> list[int]:
        """A random order; of far shards one behind another, because each is fetched whole."""
        if not samples or not is_remote(samples[0].path):
            return stream.permutation(len(samples)).tolist()
        buffer = DataConfig.shuffle_buffer
        pixels = StreamedPixels([sample.path for sample in samples], Preprocess((1, 1)), buffer)
        return pixels.shuffle_of(np.arange(len(samples)))(stream).tolist()

    def _state_path(self, split: str | None, number: int) -> Path:
        return self._staging / f".{_name(split, number)}.json"

    def _prepared(
        self, samples: Sequence[Sample], begin: int
    ) -> Iterator[tuple[int, Sample, _Picture | UnreadablePicture]]:
        """The pictures from a place of a split on, each with its place."""

        def prepare(path: Path) -> _Picture | UnreadablePicture:
            return _prepare(path, self._config.size)

        def tell(what: str, done: int, total: int) -> None:
            if self._on_progress:
                self._on_progress(what, self._done + begin + done, len(self._samples))

        paths = [sample.path for sample in samples]
        results = in_threads(prepare, paths, "packing", tell, piece_length=_PIECE)
        for place, (sample, result) in enumerate(zip(samples, results, strict=True), begin):
            yield place, sample, result

    def _write_shard(
        self,
        split: str | None,
        number: int,
        pictures: Iterator[tuple[int, Sample, _Picture | UnreadablePicture]],
        count: int,
    ) -> dict[str, Any]:
        """The next shard of a split, and behind it the table that says what is in it."""
        form = SHARD_FILES[self._config.form]
        path = self._staging / f"{_name(split, number)}{form.suffix}"
        names: list[str] = []
        packed: list[tuple[Sample, Entry]] = []
        unreadable: list[tuple[str, str]] = []
        place = 0
        with atomic_path(path) as staging, form(staging, tuple(self._numbers)) as shard:
            for place, sample, picture in pictures:
                if isinstance(picture, UnreadablePicture):
                    unreadable.append((self._told_path(sample), str(picture)))
                else:
                    names.append(f"{place:09}{picture.suffix}")
                    packed.append((sample, picture.entry))
                    told = {"file": self._told_path(sample), "label": sample.label,
                            "split": split, "group": sample.group}  # fmt: skip
                    shard.add(names[-1], picture.data, self._numbers.get(sample.label or ""), told)
                if shard.size >= self._config.shard_bytes or place + 1 == count:
                    break
        write_text(path.with_suffix(".csv"), self._table(path.name, names, packed, shard.offsets))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        counts = Counter(sample.label or "" for sample, _ in packed)
        return {"name": path.name, "split": split, "end": place + 1, "pictures": len(packed),
                "bytes": path.stat().st_size, "sha256": sha256, "counts": counts,
                "unreadable": unreadable}  # fmt: skip

    def _told_path(self, sample: Sample) -> str:
        inside = sample.path.is_relative_to(self._folder)
        return path_as_text(sample.path.relative_to(self._folder) if inside else sample.path)

    def _table(
        self,
        shard: str,
        names: Sequence[str],
        packed: Sequence[tuple[Sample, Entry]],
        offsets: Sequence[int],
    ) -> str:
        text = io.StringIO()
        rows: list[tuple[object, ...]] = [(*COLUMNS, *(f"{VOTES}{name}" for name in self._voted))]
        for name, (sample, entry), offset in zip(names, packed, offsets, strict=True):
            where = astuple(replace(entry, offset=offset))
            votes = (sample.votes.get(name, 0.0) for name in self._voted)
            about = (sample.label or "", sample.split or "", sample.group or "")
            rows.append((f"{shard}/{name}", *about, *where, *votes))
        write_rows(text, rows)
        return text.getvalue()


def _prepare(path: Path, size: int | None) -> _Picture | UnreadablePicture:
    """A picture's file as it is packed, once it is sure that it can be read."""
    try:
        header, picture = read_with_header(path, cover=(size, size) if size else None)
        with open_file(path) as file:
            data, suffix = file.read(), path.suffix.lower()
    except UnreadablePicture as error:
        if error.passing:  # shards would be without it for ever
            raise DataError(f"{path} {error}: start again when it can, and it goes on") from None
        return error
    except OSError as error:  # it went away in between
        raise DataError(f"{path} can't be read any more: {error.strerror or error}") from None
    if suffix not in EXTENSIONS:
        suffix = f".{header.format.lower()}"
    if size:
        picture = fit(picture, Preprocess((size, size)))
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png")
        data, suffix = buffer.getvalue(), ".png"
    digest = hasher()
    digest.update(data)
    height, width = picture.shape[:2]
    entry = Entry(0, len(data), height, width, digest.hexdigest(), fingerprint(picture))
    return _Picture(suffix, data, entry)


def _name(split: str | None, number: int) -> str:
    return f"{split or UNDIVIDED}-{number:06}"


def _plan_of(listing: Listing, config: PackConfig) -> str:
    """Equal for what ends in the same shards, as long as no picture changes."""
    digest = hasher()
    digest.update(json.dumps(asdict(config)).encode())
    for sample in listing.samples:
        about = (sample.label, sample.split, sample.group, dict(sample.votes))
        digest.update(f"{path_as_text(sample.path)}\t{about}\n".encode())
    return digest.hexdigest()


def _keep_what_fits(staging: Path, plan: str) -> None:
    """Go on with what an earlier sitting wrote of the same, and remove what it wrote of other."""
    with storage_errors(staging):
        path = staging / _PLAN
        if not path.exists() or path.read_text() != plan:
            for old in staging.iterdir():
                if old.name != _LOCK:
                    old.unlink()
            write_text(path, plan)


@contextmanager
def _locked(staging: Path, out: Path) -> Iterator[None]:
    with storage_errors(out):
        staging.mkdir(parents=True, exist_ok=True)
        lock = FileLock(staging / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"another process packs {out}: wait for it") from None
    try:
        yield
    finally:
        lock.release()


def _index(listing: Listing, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What stands in the index: how much of what, and how to tell that a shard is whole."""
    counts: dict[str, Counter[str]] = {}
    for state in states:
        counts.setdefault(state["split"] or UNDIVIDED, Counter()).update(state["counts"])
    return {
        "format": FORMAT,
        "pictures": sum(state["pictures"] for state in states),
        "classes": list(listing.classes),
        "counts": counts,
        "shards": [
            {name: state[name] for name in ("name", "pictures", "bytes", "sha256")}
            for state in states
        ],
        "unreadable": [pair for state in states for pair in state["unreadable"]],
    }
