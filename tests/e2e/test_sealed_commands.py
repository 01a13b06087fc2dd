"""A run goes out as one sealed file, which then stands in its place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vitreous.data.faces import write_faces
from vitreous.exporting.card import facts_of
from vitreous.exporting.libraries import import_onnxruntime
from vitreous.training.classifier import load_classifier, save_classifier


@pytest.fixture(scope="module")
def calibrated(vitreous, run, tmp_path_factory) -> Path:
    """A copy of the run, calibrated on faces that were used for nothing else."""
    folder = tmp_path_factory.mktemp("sealed")
    write_faces(folder / "unseen", 60, size=32, seed=7)
    copy = shutil.copytree(run, folder / "run")
    result = vitreous("calibrate", copy, folder / "unseen")
    assert result.exit_code == 0, result.stderr
    return copy


@pytest.fixture(scope="module")
def sealed(vitreous, calibrated) -> Path:
    path = calibrated.parent / "faces.onnx"
    result = vitreous("export", calibrated, "-o", path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{path}\n"
    assert "\ncompared with the run on 23 pictures" in f"\n{result.stderr}"
    assert "pictures that chose its weights: largest difference of a probability" in result.stderr
    assert "its licence is unknown" in result.stderr
    return path


def test_a_card_has_the_score_of_the_weights_that_were_scored(run, tmp_path):
    mine = shutil.copytree(run, tmp_path / "run")
    shutil.copy(mine / "best.safetensors", mine / "copy.safetensors")
    shutil.copy(mine / "best.safetensors", tmp_path / "elsewhere.safetensors")
    classifier = load_classifier(mine / "best.safetensors")
    classifier.model.head.bias.data += 1
    save_classifier(mine / "other.safetensors", classifier)
    scored = json.loads((mine / "evaluation.json").read_text())
    assert facts_of(mine / "best.safetensors").score == scored
    assert facts_of(mine / "copy.safetensors").score == scored
    assert facts_of(mine / "other.safetensors").score is None
    assert facts_of(tmp_path / "elsewhere.safetensors").score is None


def told(vitreous, *words: object) -> tuple[str, str]:
    result = vitreous(*words)
    assert result.exit_code == 0, result.stderr
    return result.stdout, result.stderr


def test_it_answers_as_the_run_does(vitreous, calibrated, sealed, faces):
    files = [*sorted((faces / "test").rglob("*.png"))[::3], sealed.parent / "unseen" / "happy"]
    for words in ((), ("--sets", "0.9"), ("--sets", "0.95", "--refuse"), ("--refuse",)):
        found, wanted = (
            json.loads(told(vitreous, "predict", where, *files, "--json", *words)[0])
            for where in (sealed, calibrated)
        )
        for one, other in zip(found, wanted, strict=True):
            chances = [list(row.pop("probabilities").values()) for row in (one, other)]
            np.testing.assert_allclose(*chances, atol=1e-5)
            likeliest = one.pop("probability"), other.pop("probability")
            assert likeliest == (None, None) or likeliest[0] == pytest.approx(
                likeliest[1], abs=1e-5
            )
            assert one == other
    said = told(vitreous, "predict", sealed, files[0], "--sets", "0.9", "--refuse")[1]
    assert "at least 90 % of such pictures, less the 3 % at most that are refused (90 %" in said
    assert "as calibrated before it was sealed" in said
    assert "at least 97 % of such pictures are kept (95 % sure" in said
    said = told(vitreous, "predict", sealed, files[0], "--sets", "0.99")[1]
    assert said.startswith("warning: no promise that sets hold the true class of at least 99 %")


def test_something_else_is_none_of_these(vitreous, sealed, tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    answer = json.loads(told(vitreous, "predict", sealed, tmp_path, "--refuse", "--json")[0])[0]
    assert answer["refused"] is True
    assert answer["label"] is None


def test_it_scores_and_compares_as_the_run_does(vitreous, calibrated, sealed, faces):
    found, wanted = (
        json.loads(told(vitreous, "evaluate", where, faces, "--json")[0])
        for where in (sealed, calibrated)
    )
    for key in ("accuracy", "balanced_accuracy", "confusion", "baselines", "per_class"):
        assert found[key] == wanted[key]
    both = json.loads(told(vitreous, "compare", calibrated, sealed, faces, "--json")[0])
    assert both["only_right"] == {"a": 0, "b": 0}


def test_onnxruntime_and_numpy_alone_say_the_same(vitreous, calibrated, sealed, faces):
    from PIL import Image

    file = faces / "test" / "sad" / "00003.png"
    session = import_onnxruntime().InferenceSession(sealed)
    picture = np.asarray(Image.open(file).convert("RGB"))
    probabilities, strangeness = session.run(None, {"picture": picture})
    said = json.loads(session.get_modelmeta().custom_metadata_map["vitreous"])
    answer = json.loads(
        told(vitreous, "predict", calibrated, file, "--sets", "0.9", "--refuse", "--json")[0]
    )[0]
    wanted = list(answer["probabilities"].values())
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)
    refused = bool(strangeness.max() > said["refuse"]["limit"])
    within = 1 - probabilities <= said["sets"]["0.9"]["limits"]
    within[probabilities.argmax()] = True
    kept = [name for name, inside in zip(said["classes"], within, strict=True) if inside]
    assert answer["refused"] is refused
    assert sorted(answer["set"]) == ([] if refused else kept)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("predict", "{file}", "{picture}", "--sets", "0.85"), "carries sets for 0.8, 0.9, 0.95"),
        (("predict", "{file}", "{picture}", "--sets", "0.9", "--by-class"), "leave --by-class out"),
        (("predict", "{file}", "{picture}", "--runtime", "torch"), "leave --runtime, "),
        (("predict", "{file}", "{picture}", "--precision", "int8"), "leave --runtime, "),
        (("predict", "{file}", "{picture}", "--device", "cuda"), "leave --runtime, "),
        (("predict", "{file}", "{picture}", "--num-heads", "2"), "says its classes"),
        (("evaluate", "{file}"), "has no pictures of its own"),
        (("explain", "{file}", "{picture}"), "doesn't show its weights"),
        (("calibrate", "{file}", "{folder}"), "doesn't show its weights"),
        (("tune", "{file}"), "doesn't show its weights"),
        (("export", "{file}", "--to", "torch"), "doesn't show its weights"),
        (("export", "{run}", "-o", "{file}"), "exists already"),
        (("export", "{run}", "-o", "{folder}/a.tflite"), "doesn't say its format"),
        (("export", "{run}", "-o", "{folder}/a.keras", "--license", "MIT"), "leave it out"),
    ],
)
def test_what_it_can_not_is_said(vitreous, calibrated, sealed, faces, words, reason):
    names = {"file": sealed, "run": calibrated, "folder": faces,
             "picture": faces / "test" / "sad" / "00000.png"}  # fmt: skip
    before = sealed.read_bytes()
    result = vitreous(*(word.format(**names) for word in words))
    assert result.exit_code == 2
    assert reason in result.stderr
    assert sealed.read_bytes() == before


def test_a_run_without_its_pictures_is_compared_on_drawn_faces(vitreous, calibrated, tmp_path):
    weights = shutil.copy(calibrated / "best.safetensors", tmp_path / "alone.safetensors")
    said = told(vitreous, "export", weights, "--to", "torch", "-o", tmp_path / "a.pt2")[1]
    assert "drawn faces (the run's own pictures are not at hand)" in said


def test_the_card_says_what_the_run_knows(sealed):
    card = import_onnxruntime().InferenceSession(sealed).get_modelmeta()
    text = card.custom_metadata_map["model_card"]
    assert "Trained on 240 pictures (angry 80, happy 80, sad 80) from random weights" in text
    assert "On 30 test pictures, with 95 % intervals:" in text
    assert "people at work" in text
    assert str(sealed.parent) not in text
