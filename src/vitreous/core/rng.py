"""Named seeded streams of random numbers.

Every draw of a training run is keyed by what it is for and where in the run it happens, never by
what was drawn before. So nothing about random numbers has to be stored to resume a run exactly,
and turning one augmentation off doesn't change the draws of another.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed for the stream that `keys` name, the same on every platform.

    Example:
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 3)
        True
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 4)
        False
    """
    text = "\x1f".join(str(part) for part in (seed, *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_stream(seed: int, *keys: str | int) -> torch.Generator:
    """A CPU generator for tensors; draws are made on the CPU so that devices agree."""
    return torch.Generator().manual_seed(derive_seed(seed, *keys))


def numpy_stream(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator for arrays and permutations."""
    return np.random.default_rng(derive_seed(seed, *keys))


@contextmanager
def streams_kept(device: torch.device | None = None) -> Iterator[None]:
    """Behind the block PyTorch's own stream of the CPU stands where it stood before.

    Args:
        device: whose stream is kept beside it, if it is an NVIDIA GPU.
    """
    gpus = [torch.cuda.current_device()] if device and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        yield
