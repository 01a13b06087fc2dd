import numpy as np
import pytest

from vitreous.errors import RunError
from vitreous.evaluation.calibration import (
    Calibration,
    calibration_path,
    load_calibration,
    save_calibration,
)
from vitreous.evaluation.conformal import ConformalScores
from vitreous.evaluation.refusal import FEATURES, LOOKS, Refusal, fit_views


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(b"some weights")
    return path


@pytest.fixture
def calibration() -> Calibration:
    rng = np.random.default_rng(0)
    chances, labels = rng.dirichlet(np.ones(3), 50).astype(np.float32), np.arange(50) % 3
    numbers = {LOOKS: rng.random((50, 15)), FEATURES: rng.random((50, 4))}
    views = fit_views(numbers[LOOKS], numbers[FEATURES], labels)
    refusal = Refusal.calibrated(views, numbers)
    return Calibration(ConformalScores.of(chances, labels), refusal, untouched=True)


def test_it_comes_back_as_it_was(weights, calibration):
    save_calibration(weights, calibration)
    before = calibration_path(weights).read_bytes()
    found = load_calibration(weights)
    assert found is not None
    assert found.untouched
    assert (found.refusal.limit, found.refusal.promised) == (calibration.refusal.limit, False)
    for name, view in calibration.refusal.views.items():
        for field, value in vars(view).items():
            np.testing.assert_array_equal(getattr(found.refusal.views[name], field), value)
    np.testing.assert_array_equal(found.scores.scores, calibration.scores.scores)
    save_calibration(weights, found)
    assert calibration_path(weights).read_bytes() == before


def test_without_refusal(weights, calibration):
    save_calibration(weights, Calibration(calibration.scores, None, untouched=False))
    found = load_calibration(weights)
    assert (found.refusal, found.untouched) == (None, False)


def test_other_weights_do_not_take_it(weights, calibration):
    assert load_calibration(weights) is None
    save_calibration(weights, calibration)
    weights.write_bytes(b"other weights")
    with pytest.raises(RunError, match=r"belongs to other weights.*vitreous calibrate"):
        load_calibration(weights)


def test_a_damaged_file_is_told(weights, calibration):
    save_calibration(weights, calibration)
    path = calibration_path(weights)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match="damaged"):
        load_calibration(weights)
