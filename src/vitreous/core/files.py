"""Writing files so that a reader sees the old one or the new one, never half of one."""

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitreous.core.config import from_mapping
from vitreous.errors import ConfigError, RunError, StorageError

T = TypeVar("T")

#: One key only: safetensors writes several in no fixed order, and equal weights are equal files.
METADATA_KEY = "vitreous"
_CHECKSUM = "sha256"
#: Ending of what isn't whole yet.
_UNFINISHED = ".part"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"can't write {path}: {error.strerror or error}; what was saved before is untouched"
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on success it is flushed to disk and renamed to `path`.

    The folder is flushed too: else the new name could be lost with the power, and a later file's
    not.

    Raises:
        StorageError: where the disk is full or the folder can't be written.
    """
    # A folder, because what libraries put beside a file that they write goes with it then.
    with staging_folder(path) as staging:
        file = staging / path.name
        file.touch()
        mode = stat.S_IMODE(file.stat().st_mode)
        yield file
        file.chmod(mode)  # libraries make files for the owner alone
        put_in_place(file, path)


def put_in_place(file: Path, path: Path) -> None:
    """Flush a file, and the folder that its name will be in, and rename it."""
    _flush(file)
    file.replace(path)
    _flush(path.parent)


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for what isn't whole yet, which goes in the end.

    Raises:
        StorageError: where the disk is full or the folder can't be written.
    """
    with storage_errors(path):
        staging = _staging(path)
        try:
            staging.mkdir()
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write to; on success it is flushed and renamed to `path`.

    Raises:
        StorageError: where something stands there, but for an empty folder, or the disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(path) as staging:
        yield staging
        for written in (*staging.rglob("*"), staging):
            _flush(written)
        if path.is_dir():
            path.rmdir()  # only an empty one; Windows renames onto none
        staging.rename(path)
        _flush(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove, at any depth, what a killed process was about to write.

    Args:
        folder: where nobody else is writing.

    Raises:
        StorageError: where the folder can't be written.
    """
    with storage_errors(folder):
        for staging in folder.rglob(f".*-*{_UNFINISHED}"):
            shutil.rmtree(staging)


def _staging(path: Path) -> Path:
    """A name beside a file or folder, for as long as it isn't whole."""
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}{_UNFINISHED}")


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as staging:
        # A path that is no UTF-8 has lone surrogates, for which JSON has an escape.
        staging.write_text(text, "utf-8", "backslashreplace")


def copy_file(source: Path, path: Path) -> None:
    """Copy a file atomically."""
    with atomic_path(path) as staging:
        shutil.copyfile(source, staging)


def check_writable(folder: Path) -> None:
    """Refuse, before all work, a new folder that couldn't be written.

    Raises:
        StorageError: saying what stands in its way.
    """
    with storage_errors(folder):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise StorageError(f"can't write into {folder}: {there} is no folder; name another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"can't write into {there}: no permission; name another --out")


def first_free(path: Path, ending: str = "") -> Path:
    """The path with its ending, or with the first number before that which nothing has."""
    return next(place for place in numbered(path, ending) if not is_taken(place))


def numbered(path: Path, ending: str = "") -> Iterator[Path]:
    """The path with its ending, and then with the numbers from 2 on before that.

    A dot in the path's own name is part of it.
    """
    yield path.with_name(path.name + ending)
    for number in count(2):
        yield path.with_name(f"{path.name}-{number}{ending}")


def is_taken(path: Path) -> bool:
    """Whether anything has this name, be it a link to nothing."""
    return path.exists() or path.is_symlink()


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        RunError: where it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"can't read {path}: {error}") from None


@contextmanager
def named_if_damaged(path: Path) -> Iterator[None]:
    """Turn what looking into a JSON file of other fields raises into an error that names it."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is damaged or from another version: {type(error).__name__} {error}"
        ) from None


def read_record(path: Path, cls: type[T]) -> T:
    """Read a JSON file of a run as the dataclass that it was written from.

    Raises:
        RunError: where it is missing, damaged or from another version.
    """
    values = read_json(path)
    try:
        if not isinstance(values, dict):
            raise ConfigError("it holds no object")
        return from_mapping(cls, values)
    except ConfigError as error:
        raise RunError(f"{path} is damaged or from another version: {error}") from None


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    checksum: bool = False,
) -> None:
    """Write a safetensors file of vitreous atomically; equal contents give equal bytes.

    Args:
        path: of the file.
        tensors: by name.
        metadata: what JSON can say.
        checksum: have it checked, too, whenever it is read.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if checksum:
        metadata = {**metadata, _CHECKSUM: _checksum(plain, metadata)}
    write_safetensors(path, plain, {METADATA_KEY: _as_text(metadata)})


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as staging:
        try:
            save_file(plain, staging, metadata=dict(metadata))
        except SafetensorError as error:
            raise StorageError(f"can't write {path}: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `write_tensors`; the tensors are mapped into memory, not copied.

    Raises:
        RunError: where it is missing, damaged, or not written by vitreous.
    """
    with _opened_tensors(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = _metadata_of(file)
        wanted = metadata.pop(_CHECKSUM, None)
        if wanted is not None and _checksum(tensors, metadata) != wanted:
            raise ValueError("its contents don't fit its checksum")
        return tensors, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what a file of `write_tensors` says beside its tensors.

    Raises:
        RunError: where it is missing, damaged, or not written by vitreous.
    """
    with _opened_tensors(path) as file:
        return _metadata_of(file)


@contextmanager
def _opened_tensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise RunError(f"no weights at {path}") from None
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged or not a file of vitreous: {error}") from None


def _metadata_of(file: Any) -> dict[str, Any]:
    metadata = json.loads((file.metadata() or {})[METADATA_KEY])
    if not isinstance(metadata, dict):
        raise ValueError("its metadata isn't a mapping")
    return metadata


def _as_text(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of names, types, shapes and values, and of all else that the file says."""
    digest = hashlib.sha256(_as_text(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
