"""A run goes out to other libraries by one command, and comes back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.model.weights.compare import shake

CLASSES = ["angry", "happy", "sad"]
#: No stem and no flat head, which other libraries don't have.
PLAIN = ("--model", "Ti/16", "--image-size", "32", "--epochs", "1",
         "--set", "model.patch_size=[8,8]", "--set", "model.depth=2", "--set", "model.embed_dim=48",
         "--set", "preprocess.mirror=false", "--set", "train.learning_rate=4e-3")  # fmt: skip


@pytest.fixture(scope="module")
def plain(vitreous, faces, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "plain"
    result = vitreous("train", faces, "--out", path, *PLAIN)
    assert result.exit_code == 0, result.stderr
    return path


def predicted(vitreous, source: Path, files: list[Path], *words: str) -> np.ndarray:
    result = vitreous("predict", source, *files, "--json", *words)
    assert result.exit_code == 0, result.stderr
    rows = [answer["probabilities"] for answer in json.loads(result.stdout)]
    assert list(rows[0]) == CLASSES
    return np.array([list(row.values()) for row in rows])


def exported(vitreous, run: Path, to: str, out: Path) -> str:
    result = vitreous("export", run, "--to", to, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}\n"
    return result.stderr


def test_timm_prepares_and_answers_alike(vitreous, timm, plain, faces, tmp_path):
    from timm.data import create_transform, resolve_data_config

    files = sorted((faces / "test").rglob("*.png"))
    told = exported(vitreous, plain, "timm", tmp_path / "out")
    assert f"timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True)" in told
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == CLASSES
    transform = create_transform(**resolve_data_config({}, model=model))
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        theirs = model(images).softmax(1).numpy()
    # A model that learned nearly nothing is calibrated to be nearly as unsure of all its answers.
    assert np.ptp(theirs, axis=0).max() > 1e-3
    np.testing.assert_allclose(predicted(vitreous, plain, files), theirs, atol=1e-5)
    np.testing.assert_allclose(predicted(vitreous, tmp_path / "out", files), theirs, atol=1e-5)


def test_a_pipeline_of_transformers_answers_alike(vitreous, transformers, plain, faces, tmp_path):
    files = sorted((faces / "test").rglob("*.png"))
    told = exported(vitreous, plain, "transformers", tmp_path / "out")
    assert f"transformers.pipeline('image-classification', '{tmp_path / 'out'}')" in told
    classify = transformers.pipeline("image-classification", str(tmp_path / "out"))
    rows = [{row["label"]: row["score"] for row in classify(str(file))} for file in files]
    theirs = np.array([[row[name] for name in CLASSES] for row in rows])
    np.testing.assert_allclose(predicted(vitreous, plain, files), theirs, atol=1e-5)
    np.testing.assert_allclose(predicted(vitreous, tmp_path / "out", files), theirs, atol=1e-5)


def test_transformers_reads_timms_folder_too(vitreous, timm, transformers, plain, faces, tmp_path):
    """Where timm is installed."""
    files = sorted((faces / "test").rglob("*.png"))[:3]
    exported(vitreous, plain, "timm", tmp_path / "out")
    classify = transformers.pipeline("image-classification", str(tmp_path / "out"))
    rows = [{row["label"]: row["score"] for row in classify(str(file))} for file in files]
    theirs = np.array([[row[name] for name in CLASSES] for row in rows])
    np.testing.assert_allclose(predicted(vitreous, plain, files), theirs, atol=1e-5)


def test_one_file_says_all_that_the_run_did(vitreous, run, faces, tmp_path):
    """The run's mirror images and conv stem, which the other formats have no place for."""
    out = tmp_path / "faces.safetensors"
    exported(vitreous, run, "safetensors", out)
    scores = [json.loads(vitreous("evaluate", source, faces, "--json").stdout)
              for source in (run, out)]  # fmt: skip
    assert scores[0] == scores[1]
    assert load_file(out).keys() == load_file(run / "best.safetensors").keys()


@pytest.mark.parametrize("to", ["timm", "transformers"])
def test_a_compact_model_has_no_place_there(vitreous, run, tmp_path, to):
    result = vitreous("export", run, "--to", to, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"{to} has no place for model.stem (16, 32, 64), model.pool 'flatten'" in result.stderr
    able = ("onnx", "torch", "openvino", "web", "safetensors")
    assert f"these take it: {', '.join(f'--to {to}' for to in able)}" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_goes_through(vitreous, timm, transformers, tmp_path, faces):
    """One that only names a file of weights becomes a folder that says everything."""
    torch.manual_seed(0)
    oracle = shake(
        timm.models.vision_transformer.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=128, depth=1, num_heads=2, num_classes=3
        )
    )
    save_file(oracle.state_dict(), tmp_path / "vit.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    told = ("--labels", tmp_path / "names.txt", "--preprocess", "half")
    words = ("--to", "transformers", "--out", tmp_path / "out", *told)
    result = vitreous("export", tmp_path / "vit.safetensors", *words)
    assert result.exit_code == 0, result.stderr
    assert "read as timm" in result.stderr
    files = sorted((faces / "test").rglob("*.png"))[:4]
    wanted = predicted(vitreous, tmp_path / "vit.safetensors", files, *map(str, told))
    np.testing.assert_allclose(predicted(vitreous, tmp_path / "out", files), wanted, atol=1e-5)
    classify = transformers.pipeline("image-classification", str(tmp_path / "out"))
    assert classify.model.config.id2label == dict(enumerate(CLASSES))


def test_mistakes_are_one_line(vitreous, plain, tmp_path):
    (tmp_path / "out").mkdir()
    result = vitreous("export", plain, "--to", "timm", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path / 'out'} exists already: choose another --out\n"
    result = vitreous("export", plain, "--to", "onyx", "--out", tmp_path / "other")
    assert result.exit_code == 2
    assert "'timm', 'transformers', 'safetensors', 'keras'" in result.stderr
    result = vitreous("export", tmp_path / "gone", "--to", "timm")
    assert result.exit_code == 2
    assert "gone" in result.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("to", "name", "other"),
    [
        ("torch", "m.onnx", "onnx"),
        ("safetensors", "m.pt2", "torch"),
        ("timm", "m.onnx", "onnx"),
        ("transformers", "m.h5", "keras"),
    ],
)
def test_a_name_that_ends_like_another_format_is_refused(vitreous, run, tmp_path, to, name, other):
    result = vitreous("export", run, "--to", to, "-o", tmp_path / name)
    assert result.exit_code == 2
    assert f"{name} ends like a file of --to {other}" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_ending_that_another_format_has_is_told_before_the_work(vitreous, run, tmp_path):
    for to, ending in (("openvino", ".xml"), ("onnx", ".onnx")):
        result = vitreous("export", run, "--to", to, "-o", tmp_path / "model.bin")
        assert result.exit_code == 2
        assert f"--out {tmp_path / 'model.bin'}{ending}" in result.stderr
    assert not list(tmp_path.iterdir())


def test_weights_without_their_run_have_a_name_of_their_own(vitreous, run, tmp_path):
    shutil.copy(run / "best.safetensors", tmp_path / "faces.safetensors")
    assert vitreous("export", tmp_path / "faces.safetensors", "--to", "torch").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"faces.safetensors", "faces.pt2"}
