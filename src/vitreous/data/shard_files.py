"""The two kinds of files that pictures are packed into, as they are written.

Both leave the bytes of a picture in one piece, so that it can be read from its place alone.
"""

import io
import json
import mmap
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from vitreous.errors import DataError, StorageError

#: Pictures that Parquet keeps together.
_GROUP = 128


class ShardFile(Protocol):
    """A shard while it is written.

    Attributes:
        suffix: of its name.
        size: bytes of the pictures in it so far.
        offsets: of each picture's bytes; known behind the block.
    """

    suffix: str
    size: int
    offsets: list[int]

    def __init__(self, path: Path, classes: Sequence[str]) -> None: ...

    def add(self, name: str, data: bytes, number: int | None, told: Mapping[str, Any]) -> None:
        """Append a picture.

        Args:
            name: of its file in the shard.
            data: of its file.
            number: of its class; ``None`` where it has none.
            told: whatever else there is to say.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class TarShard:
    """WebDataset's: of each picture its file, its class as a number in .cls, the rest in .json."""

    suffix = ".tar"

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        # Names are short and nothing else is kept of a file, so headers are one block each.
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self.size, self.offsets = 0, []

    def add(self, name: str, data: bytes, number: int | None, told: Mapping[str, Any]) -> None:
        self.offsets.append(self._tar.offset + tarfile.BLOCKSIZE)
        self.size += len(data)
        key = name.partition(".")[0]
        self._add(name, data)
        if number is not None:
            self._add(f"{key}.cls", str(number).encode())
        known = {name: value for name, value in told.items() if value is not None}
        self._add(f"{key}.json", json.dumps(known).encode())

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tar.close()


class ParquetShard:
    """As Hugging Face `datasets` has it: a column of pictures, and one of classes with their names.

    The bytes are neither compressed, which pictures are already, nor gathered in a dictionary, so
    each picture's stand in one piece behind their length (Parquet's format, "Plain encoding").
    """

    suffix = ".parquet"

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise DataError("packing as Parquet needs pyarrow: pip install 'vitreous[parquet]'"
                            ) from None  # fmt: skip
        self._path, self._pa, self.size, self.offsets = path, pa, 0, []
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
        if classes:
            features["label"] = {"names": list(classes), "_type": "ClassLabel"}
            fields.append(("label", pa.int64()))
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pa.schema(fields, about)
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self._rows: list[dict[str, Any]] = []

    def add(self, name: str, data: bytes, number: int | None, told: Mapping[str, Any]) -> None:
        self.size += len(data)
        row = {"image": {"bytes": data, "path": told["file"]}, "label": number}
        self._rows.append({column: row[column] for column in self._schema.names})
        if len(self._rows) == _GROUP:
            self._write()

    def _write(self) -> None:
        """Write a group, and find out where its pictures have come to lie."""
        begin = self._path.stat().st_size
        self._writer.write_table(self._pa.Table.from_pylist(self._rows, self._schema))
        with (
            self._path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as all_,
        ):
            for row in self._rows:
                data = row["image"]["bytes"]
                begin = all_.find(len(data).to_bytes(4, "little") + data, begin) + 4
                if begin < 4:
                    raise StorageError(f"{self._path}: a picture isn't where it was written")
                self.offsets.append(begin)
                begin += len(data)
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rows and kind is None:
            self._write()
        self._writer.close()


SHARD_FILES: Mapping[str, type[ShardFile]] = {"tar": TarShard, "parquet": ParquetShard}
