"""The same models in every run, and real weights for those who have them."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def same_models() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not (folder / "weights").is_dir():
        pytest.skip("no ../shared/weights beside the repository: the real ViT-Ti/16 lies there")
    return folder
