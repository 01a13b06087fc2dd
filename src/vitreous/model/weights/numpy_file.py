"""Arrays out of ``.npz`` archives: numbers only, and no more of them than the archive holds."""

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.weights.damage import telling_damage

#: Trained weights hardly compress; what promises to grow more than this is an attack.
_MOST_EXPANSION = 64


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Every array of an archive.

    Raises:
        WeightsError: where it is damaged, holds objects, or promises more than it holds.
    """
    with telling_damage(path):
        with zipfile.ZipFile(path) as archive:
            _check(path, archive)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _tensor(arrays[name]) for name in arrays.files}


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    promised, there = sum(entry.file_size for entry in entries), path.stat().st_size
    if promised > _MOST_EXPANSION * there:
        raise WeightsError(
            f"{path} is {there:,} bytes long but unpacks to {promised:,}: weights don't compress "
            "like that, so this isn't a checkpoint"
        )
    for entry in entries:
        with archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = header(file)
            if dtype.hasobject:
                raise WeightsError(f"{path} holds Python objects in {entry.filename}, not numbers")
            if math.prod(shape) * dtype.itemsize + file.tell() != entry.file_size:
                raise WeightsError(f"{path} is damaged: {entry.filename} isn't of its own size")


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        # NumPy has no bfloat16 and writes it as two bytes of anything.
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array))
