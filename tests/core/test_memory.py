"""Freed memory is there again for the asking, unless somebody has settings of their own."""

import os
import platform
import subprocess
import sys

import pytest

#: Blocks of 64 MiB are asked for, filled and freed; printed is how many pages the system gave for
#: the last four of five.
SCRIPT = """
import ctypes, resource
from vitreous.core.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
keep_freed_memory()
for turn in range(5):
    block = libc.malloc({size})
    libc.memset(block, 1, {size})
    libc.free(block)
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(size: int, **environment: str) -> int:
    words = [sys.executable, "-c", SCRIPT.format(size=size)]
    environment = {**os.environ, **environment}
    return int(subprocess.run(words, env=environment, check=True, capture_output=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_a_block_that_comes_again_is_not_cleared_again():
    size = 64 << 20
    assert pages(size) < 100
    # The thresholds that glibc begins with.
    assert pages(size, MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072") > 1000
