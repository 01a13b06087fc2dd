import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from vitreous.evaluation.reliability import measure_reliability


def binary(sure: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes whose first is answered, and the truth."""
    return np.stack([sure, 1 - sure], axis=1), np.where(right, 0, 1)


def drawn(rng: np.random.Generator, count: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers that are right less often than they are sure, by this much."""
    sure = 0.6 + 0.38 * rng.beta(3, 1.2, count)
    return binary(sure, rng.random(count) < sure - gap)


def test_bins_are_those_of_scikit_learn():
    probabilities, labels = drawn(np.random.default_rng(0), 1000, 0.05)
    found = measure_reliability(probabilities, labels)
    right, sure = calibration_curve(
        labels == 0, probabilities[:, 0], n_bins=10, strategy="quantile"
    )
    assert [one.n for one in found.bins] == [100] * 10
    np.testing.assert_allclose([one.confidence for one in found.bins], sure, rtol=1e-6)
    np.testing.assert_allclose([one.accuracy.value for one in found.bins], right)
    assert found.ece.value == pytest.approx(np.abs(right - sure).mean())
    assert found.confidence == pytest.approx(probabilities[:, 0].mean())


@pytest.mark.parametrize(
    ("count", "gap", "least"),
    [(100, 0.0, 0.94), (1000, 0.0, 0.94), (100, 0.1, 0.88), (300, 0.1, 0.93), (1000, 0.03, 0.95)],
)
def test_the_interval_holds_the_true_error(count, gap, least):
    """Also that of a calibrated model, which percentiles of a bootstrap never hold."""
    rng, covered, draws = np.random.default_rng(count), 0, 200
    for _ in range(draws):
        found = measure_reliability(*drawn(rng, count, gap)).ece
        assert found.low <= found.value <= found.high
        covered += found.low <= gap + 1e-9 and gap <= found.high
    assert covered / draws >= least


def test_the_interval_narrows_with_more_pictures():
    rng = np.random.default_rng(0)
    few, many = (measure_reliability(*drawn(rng, n, 0.1)).ece for n in (100, 3000))
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low > 0.05


@pytest.mark.parametrize("gap", [0.0, 0.02])
def test_the_interval_is_narrow_with_very_many_pictures(gap):
    """So narrow that no true error that is tried lies inside: its neighbours are its ends."""
    count = 400_000
    right = np.arange(count) % 100 < 97
    found = measure_reliability(*binary(np.full(count, 0.97 + gap), right)).ece
    assert found.value == pytest.approx(gap, abs=1e-6)
    assert gap - 0.005 < found.low <= gap + 1e-6
    assert gap - 1e-6 <= found.high < gap + 0.005


@pytest.mark.parametrize("count", [1, 7, 30])
def test_few_pictures_and_certain_answers(count):
    found = measure_reliability(np.tile([1.0, 0.0], (count, 1)), np.zeros(count, dtype=int))
    assert sum(one.n for one in found.bins) == count
    assert found.ece.value == found.ece.low == 0
    wrong = measure_reliability(np.tile([1.0, 0.0], (count, 1)), np.ones(count, dtype=int))
    assert wrong.ece.value == 1
    assert wrong.ece.low < 1
