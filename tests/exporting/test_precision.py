"""Fewer bits: what is rounded, what stays, and whether it is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from vitreous.core.console import Console
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.data.preprocess import Preprocess
from vitreous.errors import DataError, VitreousError
from vitreous.evaluation.calibration import Calibration
from vitreous.evaluation.comparison import compare_answers
from vitreous.evaluation.conformal import ConformalScores
from vitreous.evaluation.intervals import difference_interval
from vitreous.exporting import reducing
from vitreous.exporting.card import RunFacts
from vitreous.exporting.gate import Gate, ask_both
from vitreous.exporting.onnx import write_onnx
from vitreous.exporting.precision import reduce_precision, write_metadata
from vitreous.exporting.reducing import Terms, seal_reduced
from vitreous.exporting.sealed_file import open_sealed
from vitreous.exporting.sealing import Sealing, seal
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.serving.guard import guard_of_sealed
from vitreous.serving.wish import Wish
from vitreous.training.classifier import Classifier

CONFIG = ModelConfig(image_size=(32, 32), patch_size=(8, 8), embed_dim=64, depth=2, num_heads=2,
                     num_classes=3)  # fmt: skip
RNG = np.random.default_rng(0)
IMAGES = [RNG.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(12)]
#: Of all products: query, key and value, what follows them, and two of the MLP, in each block.
PRODUCTS = 2 * 4


def drawn(towering: bool = False) -> ViT:
    """A model that answers differently for different pictures; one channel may be immense."""
    torch.manual_seed(0)
    model = ViT(CONFIG).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    if towering:
        with torch.no_grad():
            model.blocks[1].mlp.fc1.bias[7] = 2000.0
            model.blocks[1].mlp.fc2.weight[:, 7] *= 1e-3
    return model


def written(path: Path, model: ViT) -> Path:
    write_onnx(model, path)
    write_metadata(path, {"classes": "[]", "license": "CC0-1.0"})
    return path


def answers(path: Path) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return np.concatenate([session.run(None, {"images": image})[0] for image in IMAGES])


def off(path: Path, model: ViT) -> float:
    """The error as a share of what tells pictures apart."""
    with torch.inference_mode():
        wanted = model(torch.from_numpy(np.concatenate(IMAGES))).numpy()
    wanted_spread = (wanted - wanted.mean(0)).std()
    return float(np.sqrt(np.square(answers(path) - wanted).mean()) / wanted_spread)


@pytest.mark.parametrize(
    ("precision", "most", "least", "smaller"),
    [("int8", 0.1, 1e-3, 2.0), ("int8-weights", 0.05, 1e-4, 2.5), ("fp16", 2e-3, 1e-7, 1.6)],
)
def test_answers_stay_close_and_the_file_is_smaller(tmp_path, precision, most, least, smaller):
    model = drawn()
    whole = written(tmp_path / "whole.onnx", model)
    reduce_precision(whole, tmp_path / "reduced.onnx", precision, IMAGES[:2])
    onnx.checker.check_model(onnx.load(tmp_path / "reduced.onnx"), full_check=True)
    assert least < off(tmp_path / "reduced.onnx", model) < most

    def weights(path: Path) -> int:
        constants = onnx.load(path).graph.initializer
        return sum(numpy_helper.to_array(one).nbytes for one in constants)

    assert smaller < weights(whole) / weights(tmp_path / "reduced.onnx") < 4
    said = {one.key: one.value for one in onnx.load(tmp_path / "reduced.onnx").metadata_props}
    assert said == {"classes": "[]", "license": "CC0-1.0"}


def test_a_channel_that_towers_is_computed_apart(tmp_path):
    model = drawn(towering=True)
    whole = written(tmp_path / "whole.onnx", model)
    reduce_precision(whole, tmp_path / "apart.onnx", "int8", IMAGES[:2])
    found = onnx.load(tmp_path / "apart.onnx").graph
    channels = [one for one in found.initializer if one.name.endswith("/channels")]
    assert [numpy_helper.to_array(one).tolist() for one in channels] == [[7]]
    assert off(tmp_path / "apart.onnx", model) < 0.1
    # What the library alone makes of it is worth little.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(whole, tmp_path / "plain.onnx", per_channel=True,
                     op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8,
                     extra_options={"MatMulConstBOnly": True})  # fmt: skip
    assert off(tmp_path / "plain.onnx", model) > 0.3


def test_products_with_too_many_such_channels_stay_in_float32(tmp_path):
    model = drawn()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.bias[:24] = 2000.0
        model.blocks[1].mlp.fc2.weight[:, :24] *= 1e-3
    whole = written(tmp_path / "whole.onnx", model)
    reduce_precision(whole, tmp_path / "int8.onnx", "int8", IMAGES[:2])
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    plain = written(tmp_path / "plain.onnx", drawn())
    reduce_precision(plain, plain, "int8", IMAGES[:2])
    all_kinds = [node.op_type for node in onnx.load(plain).graph.node]
    assert all_kinds.count("MatMulInteger") == kinds.count("MatMulInteger") + 1 >= PRODUCTS


def gate(lost: int, gained: int, count: int, max_drop: float = 0.5) -> Gate:
    truth = ["x"] * count
    first = ["y"] * gained + ["x"] * (count - gained)
    second = ["x"] * (count - lost) + ["y"] * lost
    comparison = compare_answers((first, second), truth)
    return Gate(Path("a.onnx"), "int8", max_drop, comparison, (2.0, 1.0), (4.0, 1.0))


def test_what_surely_loses_too_much_is_refused():
    found = gate(60, 5, 1000)
    assert found.verdict == "refused"
    assert found.loss.value == pytest.approx(5.5)
    assert 0.5 < found.loss.low < 5.5 < found.loss.high
    assert "int8 costs too much: +5.5 points of accuracy lost" in found.in_words()
    assert gate(60, 5, 1000, max_drop=10).verdict == "kept"


def test_what_surely_loses_little_is_kept():
    assert gate(10, 12, 20_000).verdict == "kept"
    assert gate(0, 0, 1000).verdict == "kept"
    assert gate(5, 60, 1000).verdict == "kept"


@pytest.mark.parametrize(("lost", "gained", "count"), [(0, 0, 60), (2, 1, 300), (9, 1, 1000)])
def test_too_few_pictures_are_said_to_be_and_the_number_named_settles_it(lost, gained, count):
    found = gate(lost, gained, count)
    assert found.verdict == "unsure"
    said = found.in_words()
    assert f"can't tell with so few pictures: {count:,} of them; it takes about" in said
    assert found.needed is not None
    assert found.needed > count

    def undecided(pictures: int) -> bool:
        times = pictures / count
        gain = difference_interval(round(gained * times), round(lost * times), pictures)
        return -100 * gain.high <= 0.5 < -100 * gain.low

    assert not undecided(found.needed)
    assert undecided(int(0.8 * found.needed))


def test_a_loss_just_as_large_as_allowed_is_never_settled():
    assert gate(5, 0, 1000).needed is None
    assert "hardly any number would do" in gate(5, 0, 1000).in_words()


def test_both_are_asked_about_every_picture_in_turns():
    asked = []

    def network(name: str, answer: int):
        def give(picture: np.ndarray) -> np.ndarray:
            asked.append((name, int(picture[0])))
            return np.eye(2)[answer]

        return give

    pictures = [(np.array([at]), "a" if at else "b") for at in range(4)]
    found, _ = ask_both(network("one", 0), network("two", 1), pictures, ("a", "b"))
    assert found.only_right == {"a": 3, "b": 1}
    assert asked[2:6] == [("one", 0), ("two", 0), ("two", 1), ("one", 1)]
    with pytest.raises(DataError, match="no picture that can be read"):
        ask_both(network("one", 0), network("two", 1), [], ("a", "b"))


@pytest.fixture(scope="module")
def sealing() -> Sealing:
    prepared = Preprocess(image_size=(32, 32))
    classifier = Classifier(drawn(), prepared, EXPRESSIONS, 1)
    chances, labels = RNG.dirichlet((1, 1, 1), 100), np.arange(100) % 3
    scores = ConformalScores.of(chances.astype(np.float32), labels)
    return Sealing(
        classifier, Calibration(scores, None, untouched=True), RunFacts(), "drawn", "CC0-1.0"
    )


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [draw_face(EXPRESSIONS[at % 3], 32 + at, rng) for at in range(60)]


@pytest.fixture(scope="module")
def labelled(sealing, pictures, tmp_path_factory) -> list[tuple[np.ndarray, str]]:
    """Pictures with the class that the model in float32 gives them."""
    path = tmp_path_factory.mktemp("whole") / "whole.onnx"
    seal(sealing, pictures[:2], path, "onnx")
    file = open_sealed(path)
    return [(one, EXPRESSIONS[int(file.answer(one)[0].argmax())]) for one in pictures]


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "fp16"])
def test_a_sealed_file_says_its_precision_and_what_it_costs(
    sealing, pictures, labelled, tmp_path, precision, capsys
):
    gates: list[Gate] = []
    path = tmp_path / "small.onnx"
    terms = Terms(precision, 0.5, labelled, pictures[:3], gates.append)
    seal_reduced(sealing, pictures[:2], path, terms)
    assert [one.name for one in tmp_path.iterdir()] == ["small.onnx"]
    (found,) = gates
    assert found.verdict == "unsure"
    assert found.comparison.n == 60
    assert found.megabytes[1] < found.megabytes[0]
    assert json.loads(json.dumps(found.to_json()))["needed"] == found.needed
    file = open_sealed(path)
    assert file.contract.precision == precision
    assert file.contract.classes == EXPRESSIONS
    card = file.contract.card
    assert f"{precision} instead of float32. On 60 pictures: can't tell" in card
    # What was calibrated in float32 is no promise any more, wherever it is said.
    assert sealing.contract().sets["0.9"].promised
    assert not any(limits.promised for limits in file.contract.sets.values())
    assert "95 % sure" in sealing.contract().card
    assert "95 % sure" not in card
    guard_of_sealed(file.contract, path, Wish(sets=0.9), Console())
    assert f"in float32, and these answers are in {precision}" in capsys.readouterr().err
    said = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert said == replace(file.contract).to_metadata()
    same = sum(EXPRESSIONS[int(file.answer(one)[0].argmax())] == label for one, label in labelled)
    assert same >= 57


def test_one_that_is_damaged_is_refused_and_leaves_no_file(
    sealing, pictures, labelled, tmp_path, monkeypatch
):
    def spoil(source: Path, path: Path, precision: str, seen: object) -> None:
        reduce_precision(source, path, precision, seen)
        model = onnx.load(path)
        for one in model.graph.initializer:
            value = numpy_helper.to_array(one)
            if value.dtype == np.int8:
                one.CopyFrom(numpy_helper.from_array(value[::-1].copy(), one.name))
        onnx.save(model, path)

    monkeypatch.setattr(reducing, "reduce_precision", spoil)
    gates: list[Gate] = []
    terms = Terms("int8", 0.5, labelled, pictures[:3], gates.append)
    with pytest.raises(VitreousError, match=r"small.onnx is not written: int8 costs too much"):
        seal_reduced(sealing, pictures[:2], tmp_path / "small.onnx", terms)
    assert not list(tmp_path.iterdir())
    assert gates[0].verdict == "refused"
