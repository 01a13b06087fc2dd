"""Any checkpoint on disk as named tensors and the settings beside them.

What a file is, its first bytes say, not its name. Which model its tensors are, the modules of the
single formats say (`timm`, `transformers`, `google`, `torchvision`, `own`).
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.weights import numpy_file, torch_file
from vitreous.model.weights.damage import telling_damage

Container = Literal["safetensors", "torch", "npz", "keras"]

#: safetensors' own bound; real headers take some 100 bytes a tensor.
_MOST_HEADER = 100 * 2**20
_MOST_JSON = 16 * 2**20
#: What a folder's weights are called, the first of these that is there.
FOLDER_FILES = (
    "best.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: What says more about them, where it lies beside weights of such a name.
SETTINGS_FILES = ("config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Source:
    """What lies on disk.

    Args:
        path: as the person named it.
        container: how the tensors are stored.
        tensors: by their names in the file; none for Keras, whose files `keras` reads itself.
        metadata: of a safetensors file.
        config: ``config.json`` beside the weights, where it belongs to them.
        preprocessor: how pictures are prepared, of ``preprocessor_config.json`` beside them.
        notes: what was left aside, for people.
    """

    path: Path
    container: Container
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def files_of(path: Path) -> list[Path]:
    """All files that `read_source` reads for a path: weights, index and settings.

    Raises:
        WeightsError: where there are no weights.
    """
    weights = _find(path)
    files = [weights, *(_shards(weights) if is_index(weights) else [])]
    if weights.name in FOLDER_FILES:
        beside = (weights.parent / name for name in SETTINGS_FILES)
        files += [file for file in beside if file.is_file()]
    return files


def read_source(path: Path) -> Source:
    """Read a file, or a folder of a model.

    Raises:
        WeightsError: where it is missing, damaged, unsafe, or no checkpoint.
    """
    weights = _find(path)
    # Another file's folder may hold a config.json of something else.
    named = weights.name in FOLDER_FILES
    config = _settings(weights.parent / "config.json") if named else {}
    preprocessor = _preprocessor(weights.parent) if named else {}
    files = _shards(weights) if is_index(weights) else [weights]
    parts = [_read_file(file) for file in files]
    tensors: dict[str, Tensor] = {}
    for part in parts:
        if twice := tensors.keys() & part.tensors.keys():
            raise WeightsError(f"{part.path} has {min(twice)}, which another shard has too")
        tensors.update(part.tensors)
    notes = tuple(note for part in parts for note in part.notes)
    first = parts[0]
    return Source(path, first.container, tensors, first.metadata, config, preprocessor, notes)


def _find(path: Path) -> Path:
    if path.is_dir():
        return _weights_in(path)
    if path.is_file():
        return path
    raise WeightsError(f"no weights at {path}: name a file, or the folder of a model or a run")


def is_index(weights: Path) -> bool:
    """Whether a file only names those that hold the tensors."""
    return weights.name.endswith(".index.json")


def _weights_in(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"{folder} has none of {', '.join(FOLDER_FILES)}: name the file of weights itself"
    )


def _preprocessor(folder: Path) -> Mapping[str, Any]:
    """Settings of the pictures, which a model with two towers may keep beside those of the text."""
    both = _settings(folder / "processor_config.json").get("image_processor")
    alone = _settings(folder / "preprocessor_config.json")
    return alone or (both if isinstance(both, dict) else {})


def _settings(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; empty where there is no file."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _MOST_JSON:
        raise WeightsError(f"{path} is longer than {_MOST_JSON:,} bytes, too long for settings")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"can't read {path}: {error}") from None
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} isn't a mapping of settings")
    return settings


def shard_names(index: Path) -> list[str]:
    """The files of a model that was saved in several, all meant to lie beside the index.

    Raises:
        WeightsError: where it names none.
    """
    places = _settings(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{index} has no weight_map")
    return sorted({str(name) for name in places.values()})


def _shards(index: Path) -> list[Path]:
    names = shard_names(index)
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise WeightsError(f"{index} names the shard '{name}', which doesn't lie beside it")
    return [index.parent / name for name in names]


def _read_file(path: Path) -> Source:
    with telling_damage(path), path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return Source(path, "keras", {})
    if start.startswith(torch_file.LEGACY_START):
        return _from_torch(path, torch_file.read_legacy(path))
    if start[8:9] == b"{":
        return _read_safetensors(path, int.from_bytes(start[:8], "little"))
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} only points to the weights: fetch them with git lfs pull")
    raise WeightsError(
        f"{path} is no file of weights that is read here: safetensors, torch.save, .npz or Keras"
    )


def _read_zip(path: Path) -> Source:
    with telling_damage(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "model.weights.h5" in names:
        return Source(path, "keras", {})
    if names and all(name.endswith(".npy") for name in names):
        return Source(path, "npz", numpy_file.read_arrays(path))
    return _from_torch(path, torch_file.read_archive(path))


def _from_torch(path: Path, content: Any) -> Source:
    tensors, notes = torch_file.find_tensors(path, content)
    return Source(path, "torch", tensors, notes=tuple(notes))


def _read_safetensors(path: Path, header: int) -> Source:
    size = path.stat().st_size
    if header > min(_MOST_HEADER, size - 8):
        raise WeightsError(
            f"{path} is damaged: it claims a header of {header:,} bytes in a file of {size:,}, so "
            "it is cut off or not a file of weights"
        )
    with telling_damage(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Source(path, "safetensors", tensors, file.metadata() or {})
