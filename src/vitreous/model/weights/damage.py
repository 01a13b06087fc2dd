"""One line for whatever a damaged file makes its library raise."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vitreous.core.memory import is_out_of_memory
from vitreous.errors import WeightsError, first_line

#: Archives fail in their own ways, and with what their names, sizes and flags make Python raise.
_RAISED = (
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    tokenize.TokenError,  # a NumPy header that is no Python
    MemoryError,
)


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Turn what reading raises into an error that names the file.

    Raises:
        WeightsError: for any damage.
    """
    try:
        yield
    except _RAISED as error:
        if is_out_of_memory(error):
            raise too_large(path) from None
        reason = first_line(error)[:200]
        raise WeightsError(f"{path} is damaged: {reason}; fetch or save it again") from None


def too_large(path: Path) -> WeightsError:
    """What is said where memory ends: a damaged file may ask for any amount of it."""
    return WeightsError(
        f"{path} takes more memory than there is, or is damaged: close other programs, or fetch or "
        "save it again"
    )
