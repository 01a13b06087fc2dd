"""The suite's device, and oracles whose torchvision needs operators that PyTorch may lack."""

import os
from collections.abc import Iterator

# What the tests hold against one another are a CPU's numbers; `make test-gpu` is for the rest.
if "VITREOUS_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory) -> Iterator[None]:
    """Nothing is left in the cache of whoever runs the tests, and nothing of before is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield


def _name_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        import torchvision  # noqa: F401  # it names them itself where it fits PyTorch
    except RuntimeError:
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou) -> Tensor")
    return library


@pytest.fixture(scope="session")
def timm():
    library = _name_operators()
    import timm.models

    yield timm
    del library


@pytest.fixture(scope="session")
def transformers():
    library = _name_operators()
    import transformers

    # imports its parts, and torchvision with them, when one is asked for
    yield transformers
    del library
