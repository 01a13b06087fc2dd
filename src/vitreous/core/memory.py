"""What this process does with memory that it has freed, and when there is too little of it."""

import ctypes
import os
import sys

#: The numbers of glibc's malloc.h, and the most memory at once that is kept.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MOST = -1, -3, 1 << 30
#: What PyTorch, CUDA and their libraries say where memory ends, in lower case.
_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is too small, of the GPU or of this process.

    Or whether one was about to, when another came of it: a CUDA graph that can't be ended.
    """
    import torch

    at: BaseException | None = error
    while at is not None:
        said = str(at).lower()
        if isinstance(at, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(at, RuntimeError) and any(words in said for words in _NO_MEMORY):
            return True
        at = at.__cause__ or at.__context__
    return False


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for what is asked for next; glibc only.

    It gives every block of 32 MiB and more back to the system, which clears each of its pages anew
    when they are asked for again: up to a seventh of a training step (docs/experiments/LOG.md).
    Blocks above 1 GiB still come and go, and so does what lies free beyond that at the heap's end.
    Nothing changes where somebody has settings of their own (mallopt(3), ``MALLOC_...``).
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has no such thing
        mallopt(_MMAP_THRESHOLD, _MOST)
        mallopt(_TRIM_THRESHOLD, _MOST)
