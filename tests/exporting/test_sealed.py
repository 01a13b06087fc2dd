"""A sealed file answers as its model does, says what it is, and is refused where it doesn't."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.model.weights.compare import shake
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.data.preprocess import Preprocess
from vitreous.errors import RunError, VitreousError, WeightsError
from vitreous.evaluation.calibration import Calibration
from vitreous.evaluation.conformal import ConformalScores
from vitreous.evaluation.inference import TorchNetwork, probabilities_of
from vitreous.evaluation.refusal import FEATURES, LOOKS, Refusal, fit_views
from vitreous.evaluation.seeing import Seen, see_pixels
from vitreous.exporting import sealing as module
from vitreous.exporting.card import RunFacts
from vitreous.exporting.contract import KEY, Contract
from vitreous.exporting.parity import check_parity
from vitreous.exporting.sealed_file import open_sealed
from vitreous.exporting.sealing import Sealing, seal
from vitreous.model.features import WithFeatures
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.training.classifier import Classifier, tempered

#: The middle of a picture that covers 37 x 40 px, and of its mirror image.
PREPARED = Preprocess((32, 32), (37, 40), mean=(0.4, 0.5, 0.6), mirror=True)


def seen(classifier: Classifier, pixels: np.ndarray) -> Seen:
    network = TorchNetwork(WithFeatures(classifier.model))
    return see_pixels(network, torch.from_numpy(pixels), classifier.preprocess, 3)


@pytest.fixture(scope="module")
def sealing() -> Sealing:
    config = preset("compact-32", depth=2, embed_dim=32, num_heads=2, stem=(8, 16, 32))
    torch.manual_seed(0)
    model = ViT(replace(config, num_classes=3)).eval()
    shake(model)
    # Without it the answers are so sure that nothing could move them.
    classifier = tempered(Classifier(model, PREPARED, EXPRESSIONS, 1), 8.0)
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    faces = np.stack([draw_face(EXPRESSIONS[label], 32, rng) for label in labels])
    once = replace(classifier, preprocess=replace(PREPARED, mirror=False))
    learned, others = seen(once, faces[:100]), seen(classifier, faces[100:])
    views = fit_views(learned.numbers[LOOKS], learned.numbers[FEATURES], labels[:100])
    calibration = Calibration(
        ConformalScores.of(probabilities_of(others.logits), labels[100:]),
        Refusal.calibrated(views, others.numbers),
        untouched=True,
    )
    facts = RunFacts({"angry": 34, "happy": 33, "sad": 33}, None, "")
    return Sealing(classifier, calibration, facts, "drawn", "CC0-1.0")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [draw_face("happy", size, rng) for size in (32, 45, 200)]


@pytest.fixture(scope="module")
def file(sealing, pictures, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "drawn.onnx"
    parity = seal(sealing, pictures, path, "onnx")
    assert parity.pictures == 14
    assert max(open_sealed(path).answer(pictures[0])[0]) < 0.9
    assert parity.largest < 1e-5
    return path


def test_it_is_a_valid_graph_of_one_picture(file):
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = open_sealed(file).session
    (picture,) = session.get_inputs()
    assert (picture.name, picture.type) == ("picture", "tensor(uint8)")
    assert picture.shape == ["height", "width", 3]
    assert [one.name for one in session.get_outputs()] == ["probabilities", "strangeness"]
    assert b"site-packages" not in file.read_bytes()


def test_it_says_what_it_is(file, sealing):
    said = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert json.loads(said["classes"]) == ["angry", "happy", "sad"]
    assert said["license"] == "CC0-1.0"
    assert "people at work" in said["model_card"]
    assert "angry 34, happy 33, sad 33" in said["model_card"]
    contract = json.loads(said[KEY])
    assert contract["image_size"] == [32, 32]
    assert contract["decoding"]["jpeg_scaled_to_cover"] == [37, 40]
    assert list(contract["sets"]) == ["0.8", "0.9", "0.95", "0.99"]
    assert [found["promised"] for found in contract["sets"].values()] == [True, True, True, False]
    rule = sealing.calibration.scores.rule(0.9, 3)
    # Pictures that lie on a limit stay inside, however the graph rounds.
    assert contract["sets"]["0.9"]["limits"] == pytest.approx(rule.limits + 1e-5, abs=1e-7)
    assert contract["refuse"]["views"] == ["looks", "features"]
    assert contract["refuse"]["limit"] == np.float32(sealing.refusal.limit)
    assert Contract.from_metadata(file, said) == sealing.contract()


def test_one_that_answers_otherwise_is_not_left_behind(sealing, pictures, tmp_path, monkeypatch):
    def spoilt(classifier: Classifier, refusal: Refusal | None) -> module.Sealed:
        sealed = Sealed(classifier, refusal)
        sealed.model.model.head.bias += torch.tensor([0.002, 0.0, 0.0])
        return sealed

    Sealed = module.Sealed
    monkeypatch.setattr(module, "Sealed", spoilt)
    with pytest.raises(VitreousError, match=r"differs from the model by .* in a probability"):
        seal(sealing, pictures, tmp_path / "a.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_other_strangeness_is_noticed_too(sealing, pictures):
    views = sealing.refusal.views
    farther = replace(views[LOOKS], distances=views[LOOKS].distances * 1.5)
    other = replace(sealing.refusal, views={**views, LOOKS: farther})
    path = Path("a.onnx")
    for refusal, right in ((sealing.refusal, True), (other, False)):
        sealed = module.Sealed(sealing.classifier, refusal)

        def answer(picture: np.ndarray, sealed: module.Sealed = sealed) -> list[np.ndarray]:
            return [one.numpy() for one in sealed(torch.from_numpy(picture))]

        if right:
            check_parity(sealing.classifier, sealing.refusal, answer, pictures, path)
            continue
        with pytest.raises(VitreousError, match="in how strange it is"):
            check_parity(sealing.classifier, sealing.refusal, answer, pictures, path)


def test_without_a_calibration_there_is_one_output(sealing, pictures, tmp_path):
    bare = replace(sealing, calibration=None)
    seal(bare, pictures, tmp_path / "a.pt2", "torch")
    with (tmp_path / "a.pt2").open("rb") as stream:
        found = torch.export.load(stream).module()(torch.from_numpy(pictures[0]))
    assert found.sum().item() == pytest.approx(1)
    assert bare.contract().sets is None
    assert bare.contract().refuse is None


def test_torch_export_gives_the_same(sealing, pictures, file, tmp_path):
    path = tmp_path / "drawn.pt2"
    assert seal(sealing, pictures, path, "torch").largest < 1e-5
    extra = {KEY: "", "classes": ""}
    with path.open("rb") as stream:
        program = torch.export.load(stream, extra_files=extra)
    assert json.loads(extra["classes"]) == ["angry", "happy", "sad"]
    assert Contract.from_metadata(path, extra) == sealing.contract()
    found = program.module()(torch.from_numpy(pictures[2]))
    for one, other in zip(found, open_sealed(file).answer(pictures[2]), strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


def test_openvino_gives_the_same(sealing, pictures, file, tmp_path):
    from vitreous.exporting.libraries import openvino_core

    path = tmp_path / "drawn.xml"
    assert seal(sealing, pictures, path, "openvino").largest < 1e-4
    assert sorted(one.name for one in tmp_path.iterdir()) == ["drawn.bin", "drawn.xml"]
    graph = openvino_core().read_model(path)
    said = {KEY: graph.get_rt_info([KEY]).astype(str)}
    assert Contract.from_metadata(path, said) == sealing.contract()


def test_what_is_no_sealed_file_is_told(file, tmp_path):
    bad = tmp_path / "bad.onnx"
    with pytest.raises(RunError, match="no file at"):
        open_sealed(bad)
    for content in (b"", b"not a graph", file.read_bytes()[:5000], b"\x08" * 100):
        bad.write_bytes(content)
        with pytest.raises(WeightsError, match=r"bad\.onnx"):
            open_sealed(bad)
    model = onnx.load(file)
    said = {one.key: one.value for one in model.metadata_props}
    contract = json.loads(said[KEY])
    for wrong, words in (
        (None, "is no sealed file of vitreous"),
        ("{", "says of itself is damaged"),
        ("[1]", "says of itself is damaged"),
        (json.dumps(contract | {"format": 2}), "has format 2, this version reads 1"),
        (
            json.dumps(contract | {"classes": ["a"], "sets": None, "majority_class": 0}),
            "not the one that it speaks of",
        ),
        (json.dumps(contract | {"classes": ["a", "b"]}), "a set has a limit for each class"),
        (json.dumps(contract | {"sets": {"x": contract["sets"]["0.9"]}}), "damaged: could not"),
        (json.dumps(contract | {"preprocess": {"image_size": [0, 1]}}), "at least 1 px"),
        (json.dumps(contract | {"refuse": {"views": ["x"]}}), "damaged"),
    ):
        del model.metadata_props[:]
        if wrong is not None:
            onnx.helper.set_model_props(model, {KEY: wrong})
        onnx.save(model, bad)
        with pytest.raises(WeightsError, match=words):
            open_sealed(bad)


def test_onnxruntime_alone_is_enough(file):
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['onnxscript'] = None\n"
        "import numpy as np, pathlib\n"
        "from vitreous.exporting.sealed_file import open_sealed\n"
        "answer = open_sealed(pathlib.Path(sys.argv[1])).answer(np.zeros((9, 7, 3), np.uint8))\n"
        "print(len(answer))"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr


def test_a_class_that_no_scored_picture_has_is_said_to_have_none(sealing):
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    none = {"value": None, "low": 0.0, "high": 1.0}
    score = {
        "n": 20, "split": "test", "accuracy": interval, "balanced_accuracy": interval,
        "per_class": {
            "angry": {"recall": interval, "support": 20}, "happy": {"recall": none, "support": 0},
        },
    }  # fmt: skip
    card = replace(sealing, facts=RunFacts({}, score, "")).contract().card
    assert "- of the angry: 0.500 (0.400 to 0.600) found" in card
    assert "- of the happy: none was among them" in card


def test_more_weights_than_one_file_holds_are_refused_before_any_work(
    sealing, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(WeightsError, match=r"GB of weights.* --to torch, openvino or saf"):
        seal(sealing, pictures, tmp_path / "a.onnx", "onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [("majority_class", 3), ("majority_class", "x"), ("classes", ["a", "b", "a"])],
)
def test_what_it_says_of_itself_has_to_make_sense(file, key, value):
    said = {one.key: one.value for one in onnx.load(file).metadata_props}
    contract = json.loads(said[KEY])
    assert contract[key] != value
    with pytest.raises(WeightsError, match="says of itself is damaged"):
        Contract.from_metadata(file, {KEY: json.dumps({**contract, key: value})})
    with pytest.raises(WeightsError, match="says of itself is damaged"):
        Contract.from_metadata(file, {KEY: "[" * 100_000})
