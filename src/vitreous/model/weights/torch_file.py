"""Tensors out of files that `torch.save` wrote, without running anything that stands in them.

A pickle is a program: it names functions and the machine calls them. Here the names of tensors,
containers and dtypes mean our own few functions, and every other name means an inert object that
takes whatever the program does to it and does nothing. Nothing is imported, nothing else called.

Both layouts are read: the zip archive of PyTorch 1.6 and later, and the row of pickles before it.
"""

import io
import math
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.weights.damage import telling_damage
from vitreous.model.weights.naming import listed

#: The first pickle of the old layout: PyTorch's magic number, in its protocol 2.
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_NAMED_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (*_DTYPES.values(), torch.complex64, torch.complex128)
}
#: What a pickle may take beside the tensors: names and structure, epochs of losses at most.
_MOST_PICKLE = 256 * 2**20
#: Bytes that views may make of any file; half precision and a tied pair make four times its length.
_MOST_SHARED = 64 * 2**20
_MOST_AXES = 64
_AGAIN = "load it where it came from and save its state_dict() as safetensors"


def read_archive(path: Path) -> Any:
    """Read a zip archive of `torch.save`.

    Raises:
        WeightsError: where it is damaged, promises more than it holds, or is a program.
    """
    with telling_damage(path), zipfile.ZipFile(path) as archive:
        return _read_archive(path, archive)


def _read_archive(path: Path, archive: zipfile.ZipFile) -> Any:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickled = [name for name in entries if name.endswith("data.pkl") and name.count("/") <= 1]
    if len(pickled) != 1:
        raise WeightsError(f"{path} is a zip archive, but not one of torch.save")
    root = pickled[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise WeightsError(f"{path} is TorchScript, a program: {_AGAIN}")
    there = path.stat().st_size
    promised = sum(entry.file_size for entry in entries.values())
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values())
    if promised > there or packed or len(entries) != len(archive.infolist()):
        raise WeightsError(
            f"{path} promises {promised:,} bytes of content in {there:,}, compressed or one over "
            "another: PyTorch does neither, so this isn't a file of its making"
        )
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
    if order.decode("ascii", "replace") != sys.byteorder:
        raise WeightsError(f"{path} was saved with the other byte order: {_AGAIN}")

    def load(dtype: torch.dtype, key: str, count: int) -> Tensor:
        name = f"{root}data/{key}"
        size = count * dtype.itemsize
        if name not in entries or entries[name].file_size != size:
            raise _Damaged(f"storage {key} of {size:,} bytes isn't in the archive")
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(archive.read(name)), dtype=dtype)

    return _unpickle(path, io.BytesIO(archive.read(pickled[0])), load)


def read_legacy(path: Path) -> Any:
    """Read a file of `torch.save` before PyTorch 1.6: pickles in a row, then the storages.

    Raises:
        WeightsError: where it is damaged, or promises more than it holds.
    """
    there = path.stat().st_size
    storages: dict[str, Tensor] = {}

    def load(dtype: torch.dtype, key: str, count: int) -> Tensor:
        # The numbers come behind the pickles: room for them now, as much as the file can fill.
        held = sum(storage.nbytes for storage in storages.values())
        if key not in storages:
            if held + count * dtype.itemsize > there:
                raise _Damaged(f"storage {key} is larger than the whole file")
            storages[key] = torch.zeros(count, dtype=dtype)
        return storages[key]

    with telling_damage(path), path.open("rb") as file:
        for _ in range(3):  # the magic number, the protocol's version, the machine's word sizes
            _unpickle(path, file, load)
        content = _unpickle(path, file, load)
        keys = _unpickle(path, file, load)
        if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
            raise WeightsError(f"{path} is damaged: its storages aren't those that it names")
        for key in keys:
            storage = storages[str(key)]
            count = int.from_bytes(file.read(8), "little")
            content_bytes = file.read(storage.nbytes)
            if count != len(storage) or len(content_bytes) != storage.nbytes:
                raise WeightsError(f"{path} is damaged: it ends within storage {key}")
            if count:
                storage.copy_(torch.frombuffer(bytearray(content_bytes), dtype=storage.dtype))
    return content


def find_tensors(path: Path, content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The model's tensors among all that a training script saved.

    Args:
        path: of the file.
        content: of the whole file.

    Returns:
        The tensors by name, and notes on what was chosen and what stands beside it.

    Raises:
        WeightsError: where there is no mapping from names to tensors, or a small file has very many
            views of its numbers.
    """
    aside: list[str] = []
    notes: list[str] = []
    for _ in range(_DEEPEST):
        inside = next((name for name in _NESTS if _leads_on(content, name)), None)
        if inside is None:
            break
        aside += [name for name in content if isinstance(name, str) and name != inside]
        if inside in _AVERAGED:
            notes.append(f"averaged weights taken, those of '{inside}', as timm does")
        content = content[inside]
    named = content if isinstance(content, dict) else {}
    named = {name: value for name, value in named.items() if isinstance(name, str)}
    tensors = {name: value.content for name, value in named.items() if type(value) is _Sealed}
    if tensors and len(tensors) >= len(content) / 2:
        _check_views(path, tensors)
        aside += [name for name in named if name not in tensors]
        return tensors, notes + ([f"left aside in the file: {listed(aside)}"] if aside else [])
    if isinstance(content, _Inert):
        raise WeightsError(f"{path} is a pickled object of its own class: {_AGAIN}")
    raise WeightsError(
        f"{path} has no mapping from names to tensors, nor one inside of "
        f"{', '.join(map(repr, _NESTS))}: {_AGAIN}"
    )


#: Where a running mean of the weights beside them is kept; timm evaluates that.
_AVERAGED = ("state_dict_ema", "model_ema")
_NESTS = (*_AVERAGED, "state_dict", "model", "teacher", "model_state_dict", "module")
_DEEPEST = 4


def _leads_on(content: Any, name: str) -> bool:
    """Whether a mapping's entry holds tensors, or is a nest itself, and no mere settings."""
    inside = content.get(name) if isinstance(content, dict) else None
    if not isinstance(inside, dict):
        return False
    return any(type(value) is _Sealed for value in inside.values()) or any(
        nest in inside for nest in _NESTS
    )


def _check_views(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """See that tensors of one storage, each of which is copied, don't add up to an attack."""
    promised = sum(4 * tensor.numel() for tensor in tensors.values())
    there = path.stat().st_size
    if promised > 4 * there + _MOST_SHARED:
        raise WeightsError(
            f"{path} is {there:,} bytes long but makes tensors of {promised:,}, many of the same "
            "numbers: no model shares them like that"
        )


class _Damaged(Exception):
    """What is wrong, without the file's name."""


class _Inert:
    """Stands for an object of any other class: takes everything, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __new__(cls, *_: object, **__: object) -> "_Inert":
        return super().__new__(cls)

    def __call__(self, *_: object, **__: object) -> "_Inert":
        return _Inert()

    def _ignore(self, *_: object) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


class _Sealed:
    """A tensor or storage that a pickle carries about: it has no method and no attribute for it.

    A tensor itself would have ``__setstate__``, which a pickle may call.
    """

    __slots__ = ("content",)
    content: Any

    def __init__(self, content: Any) -> None:
        object.__setattr__(self, "content", content)

    def __setattr__(self, name: str, value: object) -> None:
        raise _Damaged(f"it sets {name[:40]}")


class _Function(_Sealed):
    """One of ours under a pickled name."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        return self.content(*arguments)


class _Unpickler(pickle.Unpickler):
    """Turns a pickle into plain containers, numbers, text, tensors, and inert objects.

    Args:
        file: with the pickle.
        load: gives a storage by its type, key and number of elements.
        room: elements that functions may copy in all.
    """

    def __init__(
        self, file: BinaryIO, load: Callable[[torch.dtype, str, int], Tensor], room: int
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._load = load
        self._room = room
        self._storages: dict[str, _Sealed] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        if module_name == "torch" and global_name in _NAMED_DTYPES:
            return _NAMED_DTYPES[global_name]
        if copy := _COPIES.get((module_name, global_name)):
            return _Function(lambda elements=(): copy(self._counted(elements)))
        function = _FUNCTIONS.get((module_name, global_name))
        # A fresh class each time: what a pickle does to it is forgotten with the pickle.
        return _Function(function) if function else type("Inert", (_Inert,), {})

    def _counted(self, elements: Collection[Any]) -> Collection[Any]:
        """What is about to be copied: one list of many may be, again and again in a few bytes."""
        self._room -= len(elements)
        if self._room < 0:
            raise _Damaged("it copies more elements than it has bytes")
        return elements

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count), *view):
                if any(part is not None for part in view) or count < 0:
                    raise _Damaged(f"storage {key} is part of another")
                if key not in self._storages:
                    self._storages[key] = _Sealed(self._load(dtype, key, count))
                return self._storages[key]
        raise _Damaged("a storage of an unknown kind")


def _tensor(sealed: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Sealed:
    """A view of a storage, within it and no larger."""
    if len(size) > _MOST_AXES:
        raise _Damaged(f"a tensor of {len(size):,} axes")
    numbers = (offset, *size, *stride)
    if type(sealed) is not _Sealed or not all(type(n) is int and n >= 0 for n in numbers):
        raise _Damaged("a tensor without a storage or with impossible sizes")
    storage = sealed.content
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= len(storage) or count > len(storage)):
        raise _Damaged(f"a tensor of {tuple(size)} reaches beyond its storage of {len(storage)}")
    return _Sealed(storage.as_strided(size, stride, offset))


def _parameter(data: Any, *_: Any) -> Any:
    return data


class _Mapping(dict[Any, Any]):
    """A state dict: its attributes, versions of modules, are let go."""

    def __setstate__(self, _: object) -> None:
        pass


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
#: Those that take the elements of another container.
_COPIES: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): _Mapping,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "frozenset"): frozenset,
}


def _unpickle(path: Path, file: BinaryIO, load: Callable[[torch.dtype, str, int], Tensor]) -> Any:
    try:
        return _Unpickler(file, load, room=_check_sizes(file)).load()
    except _Damaged as error:
        raise WeightsError(f"{path} is damaged or hostile: {error}") from None
    # A pickle may fail in as many ways as a program.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise WeightsError(f"{path} can't be read as tensors ({reason[:200]}): {_AGAIN}") from None


def _check_sizes(file: BinaryIO) -> int:
    """See that a pickle asks for no more memory than it is long; leaves the file where it was.

    The machine makes room for the 4 billionth note, or for a byte array, before it reads either.

    Returns:
        The pickle's length in bytes.
    """
    start = file.tell()
    read = 0
    for opcode, argument, place in pickletools.genops(file):
        read = (place or 0) - start
        if opcode.name in ("LONG_BINPUT", "PUT") and int(argument or 0) > read:
            raise _Damaged(f"it makes note {argument} in {read} bytes")
        if opcode.name.startswith("EXT"):
            raise _Damaged("it names objects by number")
        if read > _MOST_PICKLE:
            raise _Damaged(f"its structure alone is longer than {_MOST_PICKLE:,} bytes")
    file.seek(start)
    return read
