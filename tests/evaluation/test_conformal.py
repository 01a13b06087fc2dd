import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy.stats import beta
from sklearn.base import BaseEstimator, ClassifierMixin

from vitreous.errors import ConfigError
from vitreous.evaluation.conformal import ConformalScores, needed_for, tolerance_rank


class Fixed(ClassifierMixin, BaseEstimator):
    """Answers with the probabilities that it is given as pictures."""

    def fit(self, pictures, labels):
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, pictures):
        return pictures

    def predict(self, pictures):
        return pictures.argmax(1)


def drawn(rng: np.random.Generator, count: int, shares=(0.5, 0.3, 0.2)):
    """Probabilities of three classes, and true ones that they are not always right about."""
    labels = rng.choice(3, count, p=shares)
    logits = rng.standard_normal((count, 3)) + 1.5 * np.eye(3)[labels]
    chances = np.exp(2 * logits)
    return (chances / chances.sum(1, keepdims=True)).astype(np.float32), labels


@given(st.integers(1, 3000), st.floats(0.05, 0.995))
def test_the_rank_is_the_first_whose_share_is_surely_enough(n, share):
    rank = tolerance_rank(n, share)
    if rank is None:
        assert beta.cdf(share, n, 1) > 0.05
        assert n < needed_for(share)
    else:
        assert beta.cdf(share, rank, n + 1 - rank) <= 0.05 + 1e-9
        assert rank == 1 or beta.cdf(share, rank - 1, n + 2 - rank) > 0.05
        assert n >= needed_for(share)


def test_sets_are_mapies_at_the_level_that_the_promise_takes():
    """Its level is marginal; that of the same rank among the scores makes the same sets."""
    rng = np.random.default_rng(0)
    chances, labels = drawn(rng, 500)
    new, _ = drawn(rng, 300)
    rule = ConformalScores.of(chances, labels).rule(0.9, 3)
    rank = tolerance_rank(500, 0.9)
    fixed = Fixed().fit(chances, np.arange(3))
    theirs = SplitConformalClassifier(
        fixed, confidence_level=rank / 501 - 1e-9, conformity_score="lac", prefit=True
    ).conformalize(chances, labels)
    wanted = theirs.predict_set(new)[1][:, :, 0]
    found = rule.sets(new)
    # Ours always has the likeliest class.
    wanted[np.arange(300), new.argmax(1)] = True
    np.testing.assert_array_equal(found, wanted)
    assert 1 < found.sum(1).mean() < 2


@pytest.mark.parametrize(
    ("count", "by_class"), [(40, False), (300, False), (120, True), (300, True)]
)
def test_what_is_promised_is_kept(count, by_class):
    """In 95 % of the calibrations at least 90 % of the sets to come hold the true class."""
    rng, kept, promised, draws = np.random.default_rng(count), 0, 0, 200
    new, truth = drawn(rng, 20_000)
    for _ in range(draws):
        calibrated_on = drawn(rng, count, shares=(1 / 3, 1 / 3, 1 / 3)) if by_class else drawn(
            rng, count
        )  # fmt: skip
        rule = ConformalScores.of(*calibrated_on).rule(0.9, 3, by_class)
        held = rule.sets(new)[np.arange(len(new)), truth]
        shares = [held[truth == label].mean() for label in range(3)] if by_class else [held.mean()]
        if all(rule.promised):
            promised += 1
            kept += np.mean([share >= 0.9 for share in shares])
    assert promised > 0.8 * draws
    assert kept / promised >= 0.92


def test_no_set_is_empty_however_little_is_to_be_covered():
    chances, labels = drawn(np.random.default_rng(0), 300)
    sets = ConformalScores.of(chances, labels).rule(0.05, 3).sets(chances)
    np.testing.assert_array_equal(sets.sum(1), 1)
    np.testing.assert_array_equal(sets.argmax(1), chances.argmax(1))


def test_too_few_pictures_promise_nothing():
    chances, labels = drawn(np.random.default_rng(0), 28)
    assert ConformalScores.of(chances, labels).rule(0.9, 3).promised == (False,)
    chances, labels = drawn(np.random.default_rng(0), 29)
    rule = ConformalScores.of(chances, labels).rule(0.9, 3)
    assert rule.promised == (True,)
    assert rule.sets(chances)[np.arange(29), labels].all()


def test_a_class_without_calibration_pictures_is_in_every_set():
    chances, labels = drawn(np.random.default_rng(0), 200, shares=(0.5, 0.5, 0.0))
    rule = ConformalScores.of(chances, labels).rule(0.9, 3, by_class=True)
    assert rule.promised == (True, True, False)
    assert rule.counts[2] == 0
    assert rule.sets(chances)[:, 2].all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1.5, -1.0])
def test_a_coverage_that_makes_no_sense_is_refused(coverage):
    chances, labels = drawn(np.random.default_rng(0), 50)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ConformalScores.of(chances, labels).rule(coverage, 3)
