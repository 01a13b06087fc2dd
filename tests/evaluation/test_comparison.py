import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from vitreous.evaluation.comparison import compare_answers, comparison_in_words
from vitreous.evaluation.intervals import difference_interval


def answers(rng: np.random.Generator, count: int, both: float, one: float, other: float):
    """Three lists: two classifiers' answers and the truth, right together or alone by chance."""
    truth = rng.choice(["a", "b"], count, p=[0.8, 0.2])
    wrong = np.where(truth == "a", "b", "a")
    kind = rng.choice(4, count, p=[both, one, other, 1 - both - one - other])
    first = np.where(np.isin(kind, (0, 1)), truth, wrong)
    second = np.where(np.isin(kind, (0, 2)), truth, wrong)
    return first.tolist(), second.tolist(), truth.tolist()


def test_scores_are_scikit_learns():
    first, second, truth = answers(np.random.default_rng(0), 300, 0.7, 0.05, 0.15)
    found = compare_answers((first, second), truth)
    for name, given in (("a", first), ("b", second)):
        assert found.accuracy[name].value == pytest.approx(accuracy_score(truth, given))
        balanced = balanced_accuracy_score(truth, given)
        assert found.balanced_accuracy[name].value == pytest.approx(balanced)
    gains = [found.accuracy[name].value for name in "ba"]
    assert found.gain.value == pytest.approx(gains[0] - gains[1])
    gains = [found.balanced_accuracy[name].value for name in "ba"]
    assert found.balanced_gain.value == pytest.approx(gains[0] - gains[1])


def test_the_test_is_mcnemars():
    """Two tails of a coin thrown once for each picture that only one is right on."""
    first, second, truth = answers(np.random.default_rng(1), 200, 0.7, 0.05, 0.15)
    found = compare_answers((first, second), truth)
    fewer, apart = min(found.only_right.values()), sum(found.only_right.values())
    assert fewer < apart / 2
    assert found.p_value == pytest.approx(2 * binom.cdf(fewer, apart, 0.5))


def test_an_interval_by_its_formula():
    # Bonett and Price 2012, equation 2, written out
    gained, lost, total, z = 30, 12, 200, 1.959963984540054
    more, less = 31 / 202, 13 / 202
    half = z * ((more + less - (more - less) ** 2) / 202) ** 0.5
    found = difference_interval(gained, lost, total)
    assert (found.low, found.high) == pytest.approx((more - less - half, more - less + half))
    assert found.value == pytest.approx(0.09)


@pytest.mark.parametrize("shares", [(0.8, 0.05, 0.05), (0.85, 0.02, 0.06), (0.5, 0.2, 0.1)])
def test_differences_are_covered_as_promised(shares):
    rng, draws = np.random.default_rng(0), 300
    covered = np.zeros(2)
    for _ in range(draws):
        first, second, truth = answers(rng, 200, *shares)
        found = compare_answers((first, second), truth)
        for at, gain in enumerate((found.gain, found.balanced_gain)):
            covered[at] += gain.low <= shares[2] - shares[1] <= gain.high
    assert (covered / draws >= 0.92).all()


def test_who_is_better_is_said_only_where_it_shows():
    first, second, truth = ["x"] * 40 + ["y"] * 20, ["x"] * 60, ["x"] * 60
    found = compare_answers((first, second), truth)
    assert found.better == "b"
    assert "B is right on 20 more of 60 pictures" in comparison_in_words(found, ("A", "B"))
    found = compare_answers((second, first), truth)
    assert found.better == "a"
    words = comparison_in_words(found, ("A", "B"))
    assert words == "A is right on 20 more of 60 pictures, +33.3 points (+19.8 to +44.7): better"
    found = compare_answers((truth[:-2] + ["y"] * 2, truth), truth)
    assert found.better is None
    assert comparison_in_words(found, ("A", "B")).endswith("too few to tell which is better")


def test_two_that_answer_alike_leave_a_range_open():
    found = compare_answers((["x"] * 100, ["x"] * 100), ["x"] * 90 + ["y"] * 10)
    assert found.p_value == 1.0
    assert found.gain.low < 0 == found.gain.value < found.gain.high
    assert "as many of 100 pictures" in comparison_in_words(found, ("A", "B"))
