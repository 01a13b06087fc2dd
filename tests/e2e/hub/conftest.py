"""A hub on loopback, a machine that knows no other, and two models to be had there."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.e2e.hub.stand_in import LARGE, NAME, Hub, files_of
from tests.model.weights.compare import shake


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """The folder of what checkpoints became, for this module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield


@pytest.fixture(scope="module")
def models(timm, tmp_path_factory) -> list[Path]:
    """Two small models as timm itself writes them for the hub."""
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        size = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1}
        model = timm.create_model("vit_tiny_patch16_224", **size, num_classes=3)
        folder = tmp_path_factory.mktemp("model")
        names = {"label_names": ["angry", "happy", "sad"]}
        timm.models.save_for_hf(shake(model, seed), folder, names, model_args=size,
                                safe_serialization="both")  # fmt: skip
        (folder / "README.md").write_text("A card.\n" * LARGE)
        folders.append(folder)
    return folders


@pytest.fixture
def hub(models):
    hub = Hub()
    hub.add(NAME, files_of(models[0]))
    yield hub
    hub.stop()


@pytest.fixture
def machine(hub, tmp_path, monkeypatch):
    """Sets variables for the commands that follow, which begin as a new process does.

    huggingface_hub reads them when it is imported, so it is forgotten each time.
    """
    kept = {name: module for name, module in sys.modules.items() if is_theirs(name)}

    def begin(**variables: str) -> None:
        for name in filter(is_theirs, list(sys.modules)):
            del sys.modules[name]
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    begin(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), NO_PROXY="127.0.0.1,localhost")
    yield begin
    begin()
    sys.modules.update(kept)


def is_theirs(module: str) -> bool:
    return module.partition(".")[0] == "huggingface_hub"


@pytest.fixture
def picture(faces) -> Path:
    return faces / "test" / "sad" / "00000.png"


@pytest.fixture
def ask(vitreous, machine, picture) -> Callable[..., tuple[dict[str, float], str]]:
    """What a model answers for a picture, and what was said."""

    def answer(where: object, *words: object) -> tuple[dict[str, float], str]:
        result = vitreous("predict", where, picture, *words, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)[0]["probabilities"], result.stderr

    return answer


@pytest.fixture
def refused(vitreous, machine, picture) -> Callable[[object], str]:
    """The one line that a model's name ends in."""

    def line(where: object, status: int = 2) -> str:
        result = vitreous("predict", where, picture, "--quiet")
        assert result.exit_code == status, result.stderr
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        return result.stderr

    return line


@pytest.fixture
def fetch_alone(machine) -> Callable[[str], str]:
    """Has a commit's weights fetched without their settings, as another program may do."""
    machine(HF_HUB_DISABLE_XET="1")
    from huggingface_hub import hf_hub_download

    return lambda commit: hf_hub_download(NAME, "model.safetensors", revision=commit)
