import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from vitreous.evaluation.inference import probabilities_of
from vitreous.evaluation.temperature import fit_temperature, log_probabilities


def drawn(temperature: float, count: int, looks: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by exactly this factor."""
    rng = np.random.default_rng(0)
    honest = 2 * rng.standard_normal((count, 4))
    chances = np.exp(honest) / np.exp(honest).sum(1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in chances])
    return np.repeat(temperature * honest[:, None], looks, axis=1), labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_it_undoes_what_made_the_logits_too_sure(temperature):
    logits, labels = drawn(temperature, 8000)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_is_more_likely():
    """The optimum of one look, found by PyTorch's cross-entropy and another method."""
    logits, labels = drawn(2.0, 500)
    targets = torch.from_numpy(labels)

    def loss(logarithm):
        scaled = torch.from_numpy(logits[:, 0] / np.exp(logarithm))
        smoothing = 1 / (len(labels) + 1)
        return torch.nn.functional.cross_entropy(
            scaled, targets, label_smoothing=smoothing
        ).item()  # fmt: skip

    best = minimize(lambda x: loss(x[0]), [0.0], method="Nelder-Mead", options={"xatol": 1e-7})
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(best.x[0]), rel=2e-4)


def test_each_look_is_divided_before_they_are_averaged():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 400)
    logits = 8 * (rng.standard_normal((400, 2, 3)) + np.eye(3)[labels][:, None])
    found = fit_temperature(logits, labels)

    def loss(temperature):
        chances = probabilities_of(logits / temperature)
        return -np.log(chances[np.arange(400), labels]).mean()

    assert found > 2
    assert loss(found) < min(loss(0.9 * found), loss(1.1 * found))


def test_a_few_pictures_all_right_do_not_make_it_certain():
    logits = np.zeros((30, 1, 3))
    logits[:, 0, 1] = 4.0
    labels = np.ones(30, dtype=int)
    found = fit_temperature(logits, labels)
    # One more picture, of which every class is as likely: 30 1/3 of 31.
    assert probabilities_of(logits / found)[0, 1] == pytest.approx((30 + 1 / 3) / 31, abs=1e-4)


def test_log_probabilities_stay_finite():
    logits = np.array([[[900.0, 0.0], [0.0, 900.0]], [[900.0, 0.0], [900.0, 0.0]]])
    np.testing.assert_allclose(log_probabilities(logits)[0], np.log([0.5, 0.5]))
    assert log_probabilities(logits)[1, 1] == -900.0
