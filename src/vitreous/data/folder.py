"""Listing the pictures of a folder or a table, before any of them is decoded.

A folder has one sub-folder a class, directly or below `train`, `valid` and `test`. A table is read
by `table`. Both become the same list of `Sample`; where labels are not needed, any folder of
pictures does. Nothing is ever written beside the pictures.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vitreous.core.config import did_you_mean
from vitreous.core.files import check_writable
from vitreous.core.run import check_free
from vitreous.data.overlay import Overlay
from vitreous.data.remote import SPOOL, is_remote
from vitreous.data.shards import SUFFIXES, find_shards, rows_of
from vitreous.data.table import (
    EXTENSIONS,
    SPLIT_WORDS,
    SPLITS,
    UNREAD_EXTENSIONS,
    Sample,
    is_visible,
    table_samples,
)
from vitreous.errors import DataError, RunError


@dataclass(frozen=True)
class Listing:
    """All pictures found, in a fixed order, and the files that were passed over.

    Args:
        samples: the pictures.
        classes: names in sorted order; an index into it is the model's output index.
        ignored: files passed over: without a picture's extension, or outside all class folders.
        empty: folders of classes without a picture; none where that is refused.
        dropped: classes of which an overlay leaves no picture, under any name.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    ignored: tuple[Path, ...] = ()
    empty: tuple[Path, ...] = ()
    dropped: tuple[str, ...] = ()


def list_labelled(source: Path, overlay: Overlay | None = None) -> Listing:
    """List a folder of classes or a table.

    Args:
        source: the folder or table.
        overlay: changes to what it lists.

    Raises:
        DataError: for a missing source, no classes, an empty class, a bad table, or an overlay
            that doesn't fit.
    """
    found = survey(source)
    for folder in found.empty:
        raise DataError(
            f"class '{folder.name}' is empty: {folder} has no pictures ({_extension_words()})"
        )
    samples, dropped = found.samples, ()
    if overlay:
        samples = tuple(overlay.applied_to(samples, folder_of(source)))
        if not samples:
            raise DataError(f"{overlay.name} drops every picture of {source}")
        kept = {sample.path for sample in samples}
        labels = {sample.label for sample in found.samples if sample.path in kept}
        dropped = tuple(name for name in found.classes if name not in labels)
    classes = _known_classes(samples, source)
    return replace(found, samples=samples, classes=classes, dropped=dropped)


def survey(source: Path) -> Listing:
    """All that a folder of classes or a table lists, even where it can't be learned from yet.

    Classes without pictures, or without any to learn from, are classes here.

    Raises:
        DataError: for a missing source, no classes, or a bad table.
    """
    with _access_errors():
        if shards := find_shards(source):
            return _listing(_packed_samples(shards, source, labelled=True), [], [])
        if source.is_dir():
            return _list_folder(source)
        return _listing(table_samples(source, labelled=True), [], [])


def check_learnable(listing: Listing, source: Path) -> None:
    """Refuse what nothing can be learned from, before any picture is read.

    Raises:
        DataError: saying why.
    """
    if fault := nothing_to_learn(listing, source):
        raise DataError(f"{source} has {fault}")


def nothing_to_learn(listing: Listing, source: Path) -> str | None:
    """What a source has instead of enough to learn from, in words; ``None`` where it has enough."""
    if len(listing.classes) < 2:
        only = "".join(listing.classes)
        each = ", one sub-folder each" if source.is_dir() else ""
        found = f"the single class '{only}': a classifier needs at least 2{each}"
        # One folder too high is the likeliest mistake.
        folder = source / only
        paths = (sample.path for sample in listing.samples if sample.path.is_relative_to(folder))
        parts = {path.relative_to(folder).parts for path in paths}
        if inner := sorted({f"'{part[0]}'" for part in parts if len(part) > 1}):
            names = ", ".join(inner[:3]) + (", ..." if len(inner) > 3 else "")
            found += f"; it has the folders {names}: name {folder} instead"
        return found
    learned = [one for one in listing.samples if one.split in (None, "train")]
    if listing.samples and not learned:
        return "no training pictures, only some held back"
    if all(sample.split != "valid" for sample in listing.samples):
        counts = Counter(sample.label for sample in learned)
        if single := [name for name in listing.classes if counts[name] == 1]:
            return (
                f"1 picture of class '{single[0]}': it takes at least 2, one to learn from and one "
                "to check with; add some, or leave the class out (--overlay can drop it)"
            )
    return None


def check_beside(out: Path, source: Path, labelled: bool = True) -> None:
    """Refuse a place where something stands already, or that lies among pictures.

    Among those of a table it lies beside a folder that is called like the class of its pictures:
    whoever names the folder around them would find a class more.

    Args:
        out: what is to be written.
        source: the folder or table of pictures.
        labelled: whether a table has to have classes.

    Raises:
        RunError: naming what is wrong with it.
        StorageError: where it can't be written.
        DataError: for a bad table.
    """
    check_free(out)
    check_writable(out)
    for folder in _folders_of_classes(source, labelled):
        if out.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{out} lies among the pictures of {source}: name another --out")


def _folders_of_classes(source: Path, labelled: bool) -> set[Path]:
    if source.is_dir():
        return {source}
    if is_remote(source) or find_shards(source):
        return set()
    with _access_errors():
        samples = table_samples(source, labelled)
    folders = {(sample.path.parent, sample.label) for sample in samples}
    found = {folder.parent for folder, label in folders if folder.name == label}
    return found | {folder.parent for folder in found if folder.name.lower() in SPLIT_WORDS}


def folder_of(source: Path) -> Path:
    """The folder that relative paths count from: the source, or that of the table or the shards."""
    is_folder = source.suffix not in SUFFIXES if is_remote(source) else source.is_dir()
    return source if is_folder else source.parent


def list_unlabelled(source: Path) -> Listing:
    """List a folder of pictures or a table for learning without labels.

    All pictures are taken, however they are sorted into folders, except where the folder or table
    names splits: then those of train alone, and none of them has a split any more.

    Raises:
        DataError: for a missing source, no pictures, splits without train, or a bad table.
    """
    with _access_errors():
        shards = find_shards(source)
        if not shards and source.is_dir():
            return _list_any_folder(source)
        if shards:
            samples = _packed_samples(shards, source, labelled=False)
        else:
            samples = table_samples(source, labelled=False)
    kept = [replace(sample, split=None) for sample in samples if sample.split in (None, "train")]
    if not kept:
        raise DataError(f"{source} has no training pictures, only some held back")
    return Listing(tuple(kept), ())


def list_pictures(
    sources: Iterable[Path], on_unread: Callable[[list[Path]], None] | None = None
) -> list[Path]:
    """The files to predict: each named file as it stands, each folder's pictures sorted.

    Args:
        sources: files, folders and shards.
        on_unread: is told of photographs in a folder that can't be read for their format.

    Raises:
        DataError: for a source that doesn't exist, or a folder without pictures.
    """
    files: list[Path] = []
    for source in sources:
        with _access_errors():
            if shards := find_shards(source):
                files += (sample.path for sample in _packed_samples(shards, source, False))
            elif source.is_dir():
                walked = list(_walk(source))
                found = [path for path in walked if _is_picture(path)]
                if on_unread and (unread := list(filter(is_unread, walked))):
                    on_unread(unread)
                if not found:
                    raise DataError(f"no pictures in {source} ({_extension_words()})")
                files += found
            elif source.exists() or source.is_symlink():
                files.append(source)
            else:
                raise DataError(f"no file or folder at {source}")
    return files


@contextmanager
def _access_errors() -> Iterator[None]:
    """A folder or table that may not be opened is named, instead of passed over or traced."""
    try:
        yield
    except OSError as error:
        raise DataError(f"can't read {error.filename}: {error.strerror or error}") from None


def _packed_samples(shards: Sequence[Path], source: Path, labelled: bool) -> list[Sample]:
    SPOOL.follow(shards, 1)
    samples = []
    for shard in shards:
        for row in rows_of(shard):
            if labelled and row.label is None:
                raise DataError(
                    f"{shard / row.name} has no class: a tar says it in a .cls or .json, or by a "
                    "folder in it"
                )
            label = row.label if labelled else None
            samples.append(Sample(shard / row.name, label, row.split, row.group, row.votes))
    if not samples:
        raise DataError(f"no pictures in {source}")
    return samples


def _list_folder(root: Path) -> Listing:
    subfolders = _visible_folders(root)
    if not subfolders:
        raise DataError(
            f"{root} has no sub-folders: put each class' pictures into a folder with its name"
        )
    return _collect(_split_folders(root) or [(root, None)], root)


def _list_any_folder(root: Path) -> Listing:
    parts = _split_folders(root)
    folders = [folder for folder, split in parts if split == "train"] if parts else [root]
    if not folders:
        raise DataError(f"{root} has {', '.join(f.name for f, _ in parts)} but no 'train' folder")
    files = [path for folder in folders for path in _walk(folder)]
    samples = tuple(Sample(path) for path in files if _is_picture(path))
    if not samples:
        raise DataError(f"no pictures in {', '.join(map(str, folders))} ({_extension_words()})")
    loose = _loose_files(root) if parts else []
    return Listing(samples, (), (*loose, *(path for path in files if not _is_picture(path))))


def _split_folders(root: Path) -> list[tuple[Path, str | None]]:
    """The sub-folders that are splits with what they mean; none where sub-folders are classes."""
    subfolders = _visible_folders(root)
    splits = {folder: SPLIT_WORDS.get(folder.name.lower()) for folder in subfolders}
    named = [folder for folder in subfolders if splits[folder]]
    others = [folder.name for folder in subfolders if not splits[folder]]
    # "train" may be a class: pictures of trains, beside planes. Then no folder is a split.
    if not named or (others and not any(_visible_folders(folder) for folder in named)):
        return []
    if others:
        raise DataError(
            f"{root} has the split folders {', '.join(f.name for f in named)} and beside them "
            f"{', '.join(others)}: move those into a split or out of the folder, or give them "
            f"the name of a split ({', '.join(SPLITS)})"
        )
    if "train" not in splits.values() and len(named) > 1:
        raise DataError(f"{root} has {', '.join(f.name for f in named)} but no 'train' folder")
    return [(folder, splits[folder]) for folder in named]


def _collect(parts: list[tuple[Path, str | None]], root: Path) -> Listing:
    samples: list[Sample] = []
    ignored: list[Path] = []
    empty: list[Path] = []
    for place in dict.fromkeys((root, *(folder for folder, _ in parts))):
        ignored += _loose_files(place)
    for folder, split in parts:
        class_folders = _visible_folders(folder)
        if not class_folders:
            raise DataError(
                f"{folder} has no sub-folders: put each class' pictures into a folder with its name"
            )
        for class_folder in class_folders:
            before = len(samples)
            for path in _walk(class_folder):
                if _is_picture(path):
                    samples.append(Sample(path, class_folder.name, split))
                else:
                    ignored.append(path)
            if len(samples) == before:
                empty.append(class_folder)
    return _listing(samples, ignored, empty)


def _listing(samples: list[Sample], ignored: list[Path], empty: list[Path]) -> Listing:
    classes = {sample.label for sample in samples if sample.label} | {path.name for path in empty}
    for name in sorted(classes):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"class {name!r} has a name that isn't UTF-8: rename it") from None
    return Listing(tuple(samples), tuple(sorted(classes)), tuple(ignored), tuple(empty))


def _known_classes(samples: Sequence[Sample], source: Path) -> tuple[str, ...]:
    """The classes that can be learned; a class that only other splits have is refused."""
    names: dict[str | None, set[str]] = {}
    for sample in samples:
        names.setdefault(sample.split, set()).add(sample.label or "")
    classes = names.get("train", set()) | names.get(None, set()) or set().union(*names.values())
    for split, labels in names.items():
        where = f"the {split} folder of {source}" if split and source.is_dir() else str(source)
        for label in sorted(labels - classes):
            raise DataError(
                f"class '{label}' in {where} has no training pictures: "
                f"{did_you_mean(label, classes)}"
            )
    return tuple(sorted(classes))


def _visible_folders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if child.is_dir())
    return sorted(child for child in children if is_visible(child.name))


def _loose_files(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if not child.is_dir())
    return sorted(child for child in children if is_visible(child.name))


def _walk(folder: Path) -> Iterator[Path]:
    """All visible files below a folder, sorted; links are followed, but never round a loop."""

    def refuse(error: OSError) -> None:
        raise error

    # A link back to a folder above this one would lead into the other classes.
    above = (*folder.absolute().parents, *folder.resolve().parents)
    seen = {_identity(parent) for parent in above}
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        identity = _identity(Path(here))
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if is_visible(name))
        yield from (Path(here, name) for name in sorted(files) if is_visible(name))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def is_unread(path: Path) -> bool:
    """Whether a file is, by its name, a photograph in a format that nothing here reads."""
    return path.suffix.lower() in UNREAD_EXTENSIONS


def _extension_words() -> str:
    return f"looked for {' '.join(sorted(EXTENSIONS))}; convert others, such as .heic, to JPEG"
