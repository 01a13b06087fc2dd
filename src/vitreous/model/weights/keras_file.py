"""Keras' weight files as a plain list of layers, and tensors written back in their place.

Three layouts are read: Keras 3's ``.weights.h5``, the same inside a ``.keras`` archive, and the
``.h5`` of tf.keras 2. Nothing of a file is run: an archive's configuration isn't even looked at.
What a layer means is for `keras` to say. Needs h5py, the extra ``vitreous[keras]``.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitreous.core.files import atomic_path
from vitreous.errors import WeightsError

if TYPE_CHECKING:
    import h5py

Kind = Literal["dense", "table", "norm", "heads_in", "heads_out", "other"]

_ARCHIVED = "model.weights.h5"
# Keras stores weights as they are; what promises to grow more than this is an attack.
_MOST_EXPANSION = 64
_KINDS: dict[tuple[int, ...], Kind] = {
    (2, 1): "dense",
    (2,): "table",
    (1, 1): "norm",
    (3, 2): "heads_in",
    (3, 1): "heads_out",
}
# Optimiser moments and random states stand in the same files.
_NOT_WEIGHTS = re.compile(r"(^|/)(optimizer|optimizer_weights|_?seed_generator)(/|$)")


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a file that has weights.

    Args:
        path: where it lies, its tensors' group.
        label: the name that Keras gave the layer, numbered in the order of making, or its path.
        datasets: the tensors' full names in the file.
        tensors: kernel and bias, gamma and beta, or a table.
    """

    path: str
    label: str
    datasets: tuple[str, ...]
    tensors: tuple[np.ndarray, ...]

    @property
    def kind(self) -> Kind:
        """What the tensors' numbers of axes say that it is."""
        return _KINDS.get(tuple(tensor.ndim for tensor in self.tensors), "other")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of its tensors."""
        return tuple(tensor.shape for tensor in self.tensors)


def read_layers(path: Path) -> list[KerasLayer]:
    """Every layer with weights, in natural order of its path.

    Raises:
        WeightsError: where the file is missing, damaged, unsafe or of another kind.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    labels: dict[str, str] = {}
    with _open(path) as file:
        for name, dataset in _datasets(file, path):
            group, _, tensor = name.rpartition("/")
            layer = group.removesuffix("/vars")
            layers.setdefault(layer, {})[tensor] = dataset[()]
            label = file[group].attrs.get("name") if group else None
            labels[layer] = str(label) if label else layer
        in_vars = {layer for layer in layers if f"{layer}/vars" in file}
    if not layers:
        raise WeightsError(f"{path} has no weights: save them after the model was called once")
    found = []
    for layer in sorted(layers, key=natural):
        tensors = layers[layer]
        names = sorted(tensors, key=_tensor_rank)
        group = f"{layer}/vars" if layer in in_vars else layer
        found.append(
            KerasLayer(
                layer,
                labels[layer],
                tuple(f"{group}/{name}" for name in names),
                tuple(tensors[name] for name in names),
            )
        )
    return found


def write_layers(path: Path, layers: Sequence[KerasLayer], model_config: str | None) -> None:
    """Write a new file of Keras 3, atomically.

    Args:
        path: ends with ``.weights.h5`` or ``.keras``.
        layers: everything there is.
        model_config: text of an archive's ``config.json``; ``None`` for bare weights.

    Raises:
        StorageError: where it can't be written.
    """
    h5py = _h5py()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for layer in layers:
            file.create_group(f"{layer.path}/vars").attrs["name"] = layer.label
            for name, tensor in zip(layer.datasets, layer.tensors, strict=True):
                file[name] = tensor
    with atomic_path(path) as staging:
        if model_config is None:
            staging.write_bytes(buffer.getbuffer())
            return
        metadata = '{"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00"}'
        with zipfile.ZipFile(staging, "w") as archive:
            parts = {"metadata.json": metadata.encode(), "config.json": model_config.encode()}
            for name, content in (parts | {_ARCHIVED: buffer.getbuffer()}).items():
                archive.writestr(zipfile.ZipInfo(name), bytes(content))


def rewrite(path: Path, like: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Copy a file with some tensors replaced; names, configuration and the rest stay.

    Args:
        path: the new file.
        like: an existing file of any layout.
        tensors: new values by full name, in the old shapes.

    Raises:
        StorageError: where it can't be written.
    """
    h5py = _h5py()
    content = _weights_bytes(like)
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        for name, value in tensors.items():
            file[name][...] = value
    with atomic_path(path) as staging:
        if not zipfile.is_zipfile(like):
            staging.write_bytes(buffer.getbuffer())
            return
        with zipfile.ZipFile(like) as old, zipfile.ZipFile(staging, "w") as new:
            for info in old.infolist():
                is_weights = info.filename == _ARCHIVED
                part = bytes(buffer.getbuffer()) if is_weights else old.read(info)
                new.writestr(zipfile.ZipInfo(info.filename), part)


def natural(path: str) -> tuple[tuple[str | int, ...], ...]:
    """Sort key in which `dense` comes before `dense_1`, and `dense_9` before `dense_10`."""
    return tuple(
        tuple(int(part) if part.isdigit() else part for part in re.split(r"_?(\d+)", name))
        for name in path.split("/")
    )


def _tensor_rank(name: str) -> tuple[object, ...]:
    """Keras 3 numbers a layer's tensors; tf.keras 2 names them `kernel:0` and `bias:0`."""
    return name.startswith(("bias", "beta")), natural(name)


def _datasets(file: "h5py.File", path: Path) -> Iterator[tuple[str, "h5py.Dataset"]]:
    h5py = _h5py()
    found: list[tuple[str, Any]] = []
    # Soft and external links are not followed by this walk.
    file.visititems(lambda name, item: found.append((name, item)))
    room = _MOST_EXPANSION * max(file.id.get_filesize(), 1 << 20)
    for name, item in found:
        if not isinstance(item, h5py.Dataset) or _NOT_WEIGHTS.search(name):
            continue
        if item.external or item.is_virtual:
            raise WeightsError(f"{path}: tensor {name} lies in another file, which is not opened")
        if item.dtype.kind != "f":  # counters and seeds
            continue
        room -= item.size * item.dtype.itemsize
        if room < 0:
            raise WeightsError(f"{path}: tensor {name} {item.shape} is larger than the file allows")
        yield name, item


@contextmanager
def _open(path: Path) -> Iterator["h5py.File"]:
    h5py = _h5py()
    try:
        with h5py.File(io.BytesIO(_weights_bytes(path)), "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from None


def _weights_bytes(path: Path) -> bytes:
    """The HDF5 part of a file."""
    try:
        if not zipfile.is_zipfile(path):
            content = path.read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo(_ARCHIVED)
                if info.file_size > _MOST_EXPANSION * max(info.compress_size, 1 << 20):
                    raise WeightsError(f"{path}: its weights are packed too tightly to be weights")
                content = archive.read(info)
    except FileNotFoundError:
        raise WeightsError(f"no weights at {path}") from None
    except KeyError:
        raise WeightsError(f"{path} is an archive without {_ARCHIVED}: not a .keras file") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is damaged: {error}") from None
    if not content.startswith(b"\x89HDF"):
        raise WeightsError(f"{path} is no HDF5 file: it ends with .weights.h5, .keras or .h5")
    return content


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise WeightsError(
            "Keras files need h5py: run pip install 'vitreous[keras]' and try again"
        ) from None
    return h5py
