"""`--recipe lecture`, and its run in real Keras."""

import tomllib

import numpy as np
import pytest

import vitreous
from vitreous.core.console import Console
from vitreous.data.decode import read_picture
from vitreous.data.faces import write_faces
from vitreous.data.preprocess import Preprocess, fit
from vitreous.errors import ConfigError, RunError, StorageError

SMALL = {"embed_dim": 16, "head_dim": 16, "mlp_dim": 16, "head_hidden": [12, 12]}
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "faces"
    write_faces(folder, 10, size=40)
    return folder


@pytest.fixture(scope="module", params=["lecture", "normalised"])
def run(request, faces, tmp_path_factory):
    """With the lecture's pixels, and with other scales in each channel."""
    folder = tmp_path_factory.mktemp("runs")
    scale = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    return vitreous.train(
        faces,
        folder / "lecture-run",
        epochs=2,
        recipe="lecture",
        model="lecture-small",
        image_size=32,
        settings={"model": SMALL} | ({"preprocess": scale} if request.param != "lecture" else {}),
        cache=folder / "cache",
        console=QUIET,
    )


def test_the_recipe_is_the_lectures(run):
    config = tomllib.loads((run.path / "config.toml").read_text())
    assert config["recipe"] == "lecture"
    assert config["model"]["init"] == "keras2"
    assert config["model"]["mlp_output_activation"]
    train = config["train"]
    assert (train["optimizer"], train["learning_rate"], train["batch_size"]) == (
        "keras_adam",
        1e-3,
        32,
    )
    for name in ("warmup", "weight_decay", "label_smoothing", "ema"):
        assert train[name] == 0.0
    assert train["final_learning_rate"] == 1.0
    assert config["augment"]["flip"] == config["augment"]["mix_chance"] == 0.0


@pytest.mark.parametrize("name", ["faces.keras", "faces.weights.h5"])
def test_keras_gives_the_runs_answers_for_raw_pixels(run, faces, lecture3, keras, tmp_path, name):
    path = vitreous.export(run.path, tmp_path / name, console=QUIET)
    if name.endswith(".keras"):
        theirs = keras.saving.load_model(path, custom_objects={"vitreous>ViT": lecture3.ViT})
    else:
        theirs = lecture3.ViT(4, 16, 4, 2, 12, patch_size=16)
        theirs(np.zeros((1, 32, 32, 3), np.float32))
        theirs.load_weights(path)
    files = sorted(faces.glob("*/*.png"))[::5]
    scale = Preprocess(image_size=(32, 32), interpolation="bilinear")
    pixels = np.stack([fit(read_picture(file), scale) for file in files]).astype(np.float32)
    answers = np.array(theirs(pixels))
    for row, answer in zip(answers, vitreous.predict(run.path, *files, console=QUIET), strict=True):
        wanted = list(answer["probabilities"].values())
        assert np.abs(row - wanted).max() < 1e-5


def test_it_goes_into_the_runs_folder_and_never_over_a_file(run):
    path = vitreous.export(run.path, to="keras", console=QUIET)
    assert path == run.path / "lecture-run.keras"
    with pytest.raises(RunError, match="exists already"):
        vitreous.export(run.path, to="keras", console=QUIET)
    path.unlink()
    with pytest.raises(ConfigError, match="unknown format 'tflite'"):
        vitreous.export(run.path, to="tflite", console=QUIET)
    with pytest.raises(StorageError, match="can't write"):
        vitreous.export(run.path, run.path / "missing" / "a.keras", console=QUIET)


def test_a_wrong_scale_would_be_caught(run, tmp_path, monkeypatch):
    from vitreous.errors import VitreousError
    from vitreous.exporting import keras as exporting

    monkeypatch.setattr(exporting, "_with_scaling", lambda state, preprocess: dict(state) | {
        "patch_embed.proj.bias": state["patch_embed.proj.bias"] + 1.0})  # fmt: skip
    with pytest.raises(VitreousError, match="differs by"):
        vitreous.export(run.path, tmp_path / "a.keras", console=QUIET)
    assert not list(tmp_path.iterdir())
