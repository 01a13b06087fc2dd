"""Freed memory is there again for the asking, unless somebody has settings of their own."""

import os
import platform
import subprocess
import sys

import pytest

#: Blocks of 64 MiB are asked for, filled and freed; printed is how many pages the system gave for
#: the last four of five.
SCRIPT = """
import ctypes, resource, sys
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for turn in range(5):
    block = libc.malloc({size})
    libc.memset(block, 1, {size})
    libc.free(block)
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
COMMAND = """
from vitreous.cli import main
sys.argv = ["vitreous"]
try:
    main()
except SystemExit:
    pass
"""
SIZE = 64 << 20


def pages(first: str, **environment: str) -> int:
    words = [sys.executable, "-c", SCRIPT.format(first=first, size=SIZE)]
    environment = {**os.environ, **environment}
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_a_block_that_comes_again_is_not_cleared_again_under_the_command():
    assert pages(COMMAND) < 100
    assert pages("import vitreous") > 1000  # whose process it isn't
    # The threshold that glibc begins with, but by somebody's wish.
    assert pages(COMMAND, MALLOC_TRIM_THRESHOLD_="131072") > 1000
