"""Real weights beside the repository, for those who have them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not (folder / "weights").is_dir():
        pytest.skip("no ../shared/weights beside the repository: the real ViT-Ti/16 lies there")
    return folder
