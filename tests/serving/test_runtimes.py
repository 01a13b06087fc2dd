"""Models of every build on every runtime, and libraries that keep to themselves."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.console import Console
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.evaluation.inference import predict_pixels
from vitreous.model import onednn
from vitreous.model.config import ModelConfig
from vitreous.model.fold import FoldedAttention, fold
from vitreous.model.onednn import OneDnnLinear, has_onednn
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.serving.predictor import open_predictor
from vitreous.serving.runtimes import Engine, open_network
from vitreous.training.classifier import Classifier, load_classifier, save_classifier

SIZE = (32, 48)
LECTURE = preset("lecture-small", image_size=SIZE, patch_size=(8, 8), embed_dim=16, head_dim=16,
                 mlp_dim=16, head_hidden=(12,), depth=2, num_classes=3)  # fmt: skip
PLAIN = ModelConfig(image_size=SIZE, patch_size=(8, 8), embed_dim=24, depth=2, num_heads=2,
                    num_classes=3, num_register_tokens=2, layer_scale_init=0.5)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))


def weights_of(config: ModelConfig, preprocess: Preprocess, path):
    torch.manual_seed(0)
    model = ViT(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # a fresh one answers alike to everything
    save_classifier(path, Classifier(model, preprocess, ("a", "b", "c"), 0))
    return path


@pytest.mark.skipif(not has_onednn(), reason="this PyTorch is built without oneDNN")
def test_torch_answers_by_onednn_in_float32_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(onednn, "_FEWEST_WEIGHTS", 0)
    monkeypatch.setattr(onednn, "is_by_amd", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    path, console = tmp_path / "weights.safetensors", Console(quiet=True)
    weights_of(PLAIN, Preprocess(SIZE), path)
    full, half = (
        open_network(path, Engine("torch", name), console) for name in ("float32", "bfloat16")
    )
    assert any(isinstance(module, OneDnnLinear) for module in full.model.modules())
    assert not any(isinstance(module, OneDnnLinear) for module in half.model.modules())
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        np.testing.assert_allclose(full(images), load_classifier(path).model(images), atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("config", [LECTURE, PLAIN], ids=["lecture", "plain"])
def test_every_build_gives_torchs_answers_whatever_the_batch(tmp_path, config, runtime):
    preprocess = Preprocess(SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), mirror=True)
    path = weights_of(config, preprocess, tmp_path / "weights.safetensors")
    assert config is PLAIN or isinstance(
        fold(load_classifier(path).model).blocks[0].attn, FoldedAttention
    )
    console = Console(quiet=True)
    torch_one = open_predictor(path, Engine("torch"), console)
    other = open_predictor(path, Engine(runtime), console)
    # The model as it was trained, without folding or mapping, is the last word.
    kept = load_classifier(path).model
    for batch in (1, 5):
        pixels = torch.randint(0, 256, (batch, *SIZE, 3), dtype=torch.uint8)
        wanted = predict_pixels(torch_one.network, pixels, preprocess)
        found = predict_pixels(other.network, pixels, preprocess)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        images = (pixels / 255 - torch.tensor(preprocess.mean)) / torch.tensor(preprocess.std)
        images = images.permute(0, 3, 1, 2)
        with torch.no_grad():
            both = (kept(images).softmax(1) + kept(images.flip(-1)).softmax(1)) / 2
        np.testing.assert_allclose(wanted, both.numpy(), atol=1e-5)
        once = predict_pixels(other.network, pixels, replace(preprocess, mirror=False))
        assert np.abs(once - found).max() > 1e-3  # so the mirror image counts


def test_new_weights_are_converted_anew(tmp_path):
    pixels = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8)
    preprocess = Preprocess(SIZE)
    path = weights_of(PLAIN, preprocess, tmp_path / "weights.safetensors")
    console, engine = Console(quiet=True), Engine("openvino")
    old = predict_pixels(open_predictor(path, engine, console).network, pixels, preprocess)
    classifier = load_classifier(path)
    classifier.model.head.weight.data = classifier.model.head.weight.data.neg()
    save_classifier(path, classifier)
    new = predict_pixels(open_predictor(path, engine, console).network, pixels, preprocess)
    wanted = predict_pixels(open_predictor(path, Engine(), console).network, pixels, preprocess)
    np.testing.assert_allclose(new, wanted, atol=1e-4)
    assert np.abs(new - old).max() > 1e-2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"runtime": "abacus"}, "unknown runtime 'abacus'"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"precision": "int8"}, "--runtime onnxruntime"),
        ({"precision": "bfloat16", "runtime": "onnxruntime"}, "--runtime torch or openvino"),
    ],
)
def test_an_engine_that_there_is_not(values, words):
    with pytest.raises(ConfigError, match=words):
        Engine(**values)


def test_int8_of_more_weights_than_one_file_holds_is_refused(tmp_path, monkeypatch):
    path = weights_of(PLAIN, Preprocess(image_size=SIZE), tmp_path / "weights.safetensors")
    monkeypatch.setattr("vitreous.exporting.onnx.MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"int8 is made of one ONNX file.*--runtime openvino"):
        open_predictor(path, Engine("onnxruntime", "int8"), Console(quiet=True))
    open_predictor(path, Engine("onnxruntime"), Console(quiet=True))


def test_the_libraries_write_and_report_nothing(tmp_path):
    """Each leaves an identifier in the home folder where its telemetry is on."""
    script = (
        "from vitreous.exporting.libraries import import_onnxruntime, import_openvino; "
        "import os, sys; "
        "print(import_onnxruntime().__name__, import_openvino().__name__, "
        "'openvino_telemetry' in sys.modules, 'ORT_DISABLE_TELEMETRY' in os.environ)"
    )
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    # Switched off where they believe that nobody is there, which a test is.
    there = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD")}
    there.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=there | homes
    )
    assert done.stdout.split() == ["onnxruntime", "openvino", "False", "False"], done.stderr
    assert list(tmp_path.rglob("*")) == []


def test_a_signal_behind_a_model_dropped_elsewhere_ends_nothing(tmp_path):
    """With AMX, OpenVINO takes a stack for signals back from the wrong thread."""
    weights_of(PLAIN, Preprocess(SIZE), tmp_path / "weights.safetensors")
    script = """
import os, signal, sys, threading
from pathlib import Path
import torch
from vitreous.core.console import Console
from vitreous.serving.runtimes import Engine, open_network
held = [open_network(Path(sys.argv[1]), Engine("openvino"), Console(quiet=True))]
held[0](torch.zeros(1, 3, 32, 48))
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "weights.safetensors"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
