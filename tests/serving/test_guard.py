"""What is promised, and what isn't."""

import numpy as np
import pytest

from vitreous.core.console import Console
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.evaluation.calibration import Calibration, save_calibration
from vitreous.evaluation.conformal import ConformalScores
from vitreous.evaluation.refusal import FEATURES, LOOKS, WORDS, Refusal, fit_views
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.serving.guard import Caution, open_guard, own_calibration
from vitreous.serving.wish import Wish
from vitreous.training.classifier import (
    Classifier,
    load_classifier,
    save_classifier,
    tempered,
)


@pytest.fixture
def calibrated(tmp_path):
    """Weights with so many calibration pictures, of two classes or of one."""

    def make(count: int, untouched: bool = True, classes: int = 2, refusal: bool = True):
        small = preset("Ti/16", image_size=(32, 32), embed_dim=16, depth=1, num_heads=1)
        model = ViT(small.__class__(**{**vars(small), "num_classes": 2}))
        path = tmp_path / "best.safetensors"
        save_classifier(path, Classifier(model, Preprocess((32, 32)), ("cat", "dog"), None))
        rng = np.random.default_rng(0)
        labels = np.arange(count) % classes
        chances = rng.dirichlet(np.ones(2), count).astype(np.float32)
        numbers = {LOOKS: rng.random((count, 15)), FEATURES: rng.random((count, 4))}
        views = fit_views(numbers[LOOKS], numbers[FEATURES], labels)
        save_calibration(
            path,
            Calibration(
                ConformalScores.of(chances, labels),
                Refusal.calibrated(views, numbers) if refusal else None,
                untouched,
            ),
        )
        return path

    return make


def told(weights, capsys, **asked) -> str:
    open_guard(weights, "runs/x", Wish(**asked), Console())
    return capsys.readouterr().err


def test_promises_name_their_share_and_their_pictures(calibrated, capsys):
    weights = calibrated(157)
    promise = (
        "sets hold the true class of at least 90 % of such pictures{} ({} % sure; calibrated on "
        "157 pictures used for nothing else)"
    )
    assert promise.format("", 95) in told(weights, capsys, sets=0.9)
    said = told(weights, capsys, sets=0.9, refuse=True)
    # Two promises that hold at once are each allowed to fail.
    assert promise.format(", less the 3 % at most that are refused", 90) in said
    assert "at least 97 % of such pictures are kept (95 % sure; calibrated on 157" in said
    assert "warning" not in said
    said = told(weights, capsys, sets=0.9, by_class=True)
    assert "at least 90 % of such pictures of any one class (95 % sure" in said


@pytest.mark.parametrize(
    ("how", "asked", "words"),
    [
        ({"count": 20}, {"sets": 0.9}, "20 pictures to calibrate on are too few, it takes 29"),
        ({"count": 40}, {"sets": 0.99}, "40 pictures to calibrate on are too few, it takes 299"),
        (
            {"count": 156},
            {"refuse": True},
            "156 pictures to calibrate on are too few, it takes 157",
        ),
        (  # enough for sets, and not for how many are refused
            {"count": 100},
            {"sets": 0.9, "refuse": True},
            "less the 3 % at most that are refused: 100 pictures to calibrate on are too few, it "
            "takes 157",
        ),
        (
            {"count": 400},
            {"sets": 0.9, "by_class": True, "refuse": True},
            "of any one class: refusing empties some",
        ),
        (
            {"count": 40},
            {"sets": 0.9, "by_class": True},
            "it takes 29 of each to calibrate on, too few for 'cat' (20), 'dog' (20)",
        ),
        (
            {"count": 60, "classes": 1},
            {"sets": 0.9, "by_class": True},
            "too few for 'dog' (0)",
        ),
        (
            {"count": 100, "untouched": False},
            {"sets": 0.9},
            "the 100 pictures calibrated on also chose the weights, or they or copies of them were "
            "learned from, be it by the weights that it began with; for a promise: "
            "vitreous calibrate runs/x DATA",
        ),
        ({"count": 160, "untouched": False}, {"refuse": True}, "also chose the weights"),
        (
            {"count": 160},
            {"sets": 0.9, "refuse": True, "precision": "int8"},
            "it was calibrated in float32, and these answers are in int8",
        ),
    ],
)
def test_what_can_not_be_promised_is_a_warning_that_says_why(calibrated, capsys, how, asked, words):
    said = told(calibrated(**how), capsys, **asked)
    assert said.startswith("warning: no promise that ")
    assert words in said


def test_what_is_missing_is_an_error_that_says_what_to_do(calibrated):
    console = Console(quiet=True)
    weights = calibrated(100, refusal=False)
    with pytest.raises(ConfigError, match="learned from"):
        open_guard(weights, "runs/x", Wish(refuse=True), console)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        open_guard(weights, "runs/x", Wish(sets=90), console)
    with pytest.raises(ConfigError, match="by_class is about sets"):
        Wish(by_class=True)
    assert open_guard(weights, "runs/x", Wish(), console) is None
    (weights.parent / "calibration.safetensors").unlink()
    with pytest.raises(ConfigError, match="vitreous calibrate runs/x DATA"):
        open_guard(weights, "runs/x", Wish(sets=0.9), console)


def test_a_guard_says_what_it_found(calibrated):
    guard = open_guard(calibrated(100), "runs/x", Wish(sets=0.5, refuse=True), Console(quiet=True))
    proper = {LOOKS: np.full((2, 15), 0.5), FEATURES: np.full((2, 4), 0.5)}
    proper[FEATURES][1] = 40
    chances = np.array([[0.1, 0.9], [0.45, 0.55]], dtype=np.float32)
    kept, refused = guard.cautions(proper, chances, ("cat", "dog"))
    assert kept.classes[0] == "dog"
    assert kept.to_json() == {"set": list(kept.classes), "refused": False, "reason": None}
    assert refused.to_json() == {
        "set": [], "refused": True, "reason": WORDS[FEATURES], "label": None, "probability": None,
    }  # fmt: skip
    assert Caution(("dog",), None, None).to_json() == {"set": ["dog"]}


def test_the_calibration_of_other_weights_is_left_out_and_told(calibrated, capsys):
    weights = calibrated(100)
    assert own_calibration(weights, Console()) is not None
    assert capsys.readouterr().err == ""
    other = weights.with_name("last.safetensors")
    classifier = load_classifier(weights)
    save_classifier(other, tempered(classifier, 2.0))
    assert own_calibration(other, Console()) is None
    said = " ".join(capsys.readouterr().err.split())
    assert f"calibration.safetensors belongs to other weights than {other}" in said
    weights.with_name("calibration.safetensors").unlink()
    assert own_calibration(other, Console()) is None
    assert capsys.readouterr().err == ""
