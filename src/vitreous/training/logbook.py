"""`metrics.jsonl`: a line for each thing measured, without gaps or doubles after a resume."""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vitreous.core.files import storage_errors
from vitreous.errors import RunError


class Logbook:
    """Appends lines to a file; on resuming, lines behind the checkpoint are cut off first.

    Args:
        path: of the file.
        keep_bytes: length of the part that belongs to the state resumed from.
        tensorboard: folder for TensorBoard's files; ``None`` for none.
        step: of the state resumed from; TensorBoard forgets what lies behind it.
    """

    def __init__(
        self, path: Path, keep_bytes: int, tensorboard: Path | None = None, step: int = 0
    ) -> None:
        with storage_errors(path):
            self._file = path.open("ab")
            # Never more than there is, which would be filled up with zeros.
            self._file.truncate(min(keep_bytes, self.size))
        self._path = path
        self._board = _summary_writer(tensorboard, step + 1) if tensorboard else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Add one line, at once on disk for whoever watches the file."""
        with storage_errors(self._path):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        if self._board:
            for key in line.keys() - {"kind", "step"}:
                self._board.add_scalar(f"{line['kind']}/{key}", float(line[key]), line["step"])

    def flush(self) -> None:
        """Have all lines on the disk itself, before a checkpoint that counts on them."""
        with storage_errors(self._path):
            os.fsync(self._file.fileno())

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.seek(0, 2)

    def close(self) -> None:
        """Close the files.

        Raises:
            StorageError: where what has been written doesn't fit on the disk, as `write` said.
        """
        with ExitStack() as stack:
            if self._board:
                stack.callback(self._board.close)
            stack.enter_context(storage_errors(self._path))
            self._file.close()  # what a full disk had no room for is tried once more


def read_logbook(path: Path) -> list[dict[str, Any]]:
    """All whole lines; none where the file is missing.

    Raises:
        RunError: where one is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        found = [json.loads(line) for line in lines[:-1]]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not all(isinstance(line, dict) for line in found):
        raise RunError(f"{path} is damaged: a line of it holds no object")
    return found


def _summary_writer(folder: Path, purge_step: int):
    from torch.utils.tensorboard.writer import SummaryWriter  # an extra: `Sitting` looks for it

    return SummaryWriter(str(folder), purge_step=purge_step)
