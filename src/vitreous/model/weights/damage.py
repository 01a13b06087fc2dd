"""One line for whatever a damaged file makes its library raise."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vitreous.errors import WeightsError

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
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is damaged: {reason}; fetch or save it again") from None
