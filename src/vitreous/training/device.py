"""Where and in which precision a run computes."""

import gc
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import nn

from vitreous.errors import ConfigError
from vitreous.model.layers import Block
from vitreous.training.config import Device, TrainConfig


def choose_device(wanted: Device) -> torch.device:
    """The device that a configuration's word means on this machine.

    Raises:
        ConfigError: where this machine doesn't have it.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    there = [name for name, is_there in present.items() if is_there]
    if wanted != "auto" and wanted not in there:
        raise ConfigError(
            f"device '{wanted}' is not available here: this machine has {', '.join(there)}"
        )
    return torch.device(there[0] if wanted == "auto" else wanted)


def free_memory() -> None:
    """Give back what nobody holds any more, such as a learner, which refers to itself."""
    gc.collect()
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The type for matrix products and convolutions of the training step.

    "auto" is bfloat16 only where the hardware multiplies it natively: emulated, it is slower than
    float32 and less exact.
    """
    if wanted == "auto":
        return torch.bfloat16 if _native_bfloat16(device) else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[wanted]


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "mps":
        return False
    # Reported by PyTorch 2.11 and newer; older ones train in float32.
    read = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = read()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


#: Training shorter than this isn't worth the seconds of compiling.
_WORTH_COMPILING_S = 120.0


def choose_compile(device: torch.device, budget_s: float | None) -> bool:
    """Whether blocks are better fused: on an NVIDIA GPU, where this machine can compile for it."""
    is_worth_it = budget_s is None or budget_s >= _WORTH_COMPILING_S
    return device.type == "cuda" and can_compile(device) and is_worth_it


def can_compile(device: torch.device) -> bool:
    """Whether this machine has what compiling for a device takes.

    A run's settings may come from another machine.
    """
    if device.type == "cuda":
        return find_spec("triton") is not None and shutil.which("cc") is not None
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")  # as Inductor has it
    return device.type != "cpu" or shutil.which(os.environ.get("CXX", usual)) is not None


def fuse_blocks(model: nn.Module) -> None:
    """Let `torch.compile` fuse the operations of each of the model's blocks.

    Blocks of one shape are compiled once for all of them: six seconds instead of 21 for the whole
    model (S/16 on an H200, docs/experiments/LOG.md).
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    # Each chance of leaving a branch out is a constant, which makes a version of its own.
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, 2 * len(blocks))
    for block in blocks:
        block.compile(dynamic=False)


@contextmanager
def in_same_order(train: TrainConfig) -> Iterator[None]:
    """Inside the block sums are added up in the same order each time, if the settings ask for it.

    On a GPU that is many times slower for some operations
    (https://docs.pytorch.org/docs/stable/notes/randomness.html).
    """
    before = torch.are_deterministic_algorithms_enabled()
    if train.deterministic:
        # Read when the first product is computed there.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def describe_device(device: torch.device) -> str:
    """The device in words, for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    return f"{device.type} {name}, {torch.get_num_threads()} threads"


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory in use so far: of the GPU, or of this process, mapped pictures included.

    ``None`` where the system doesn't tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
