import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from vitreous.evaluation.choose import difference, simplest_within_one_error


def answers(rng, shares, labels):
    """Right answers, in each class as often as its share says."""
    return rng.random(len(labels)) < np.array(shares)[labels]


def test_the_error_is_that_of_answers_exchanged_at_random():
    """Picture by picture, which changes nothing where neither of the two is better."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [400, 100, 50])
    one = answers(rng, (0.9, 0.7, 0.6), labels)
    other = one | answers(rng, (0.1, 0.2, 0.3), labels)  # right wherever the first is
    gain, error = difference(one, other, labels)
    scores = [
        balanced_accuracy_score(labels, np.where(way, labels, (labels + 1) % 3))
        for way in (one, other)
    ]
    assert gain == pytest.approx(scores[1] - scores[0])
    gains = other * 1.0 - one
    drawn = []
    for _ in range(4000):
        exchanged = gains * rng.choice((-1, 1), len(labels))
        drawn.append(np.mean([exchanged[labels == c].mean() for c in range(3)]))
    assert error == pytest.approx(np.std(drawn), rel=0.05)


@pytest.mark.parametrize("count", [1, 2, 4, 40])
def test_a_whole_class_told_otherwise_is_no_certainty(count):
    """Whose gains are all alike, so that they vary by nothing."""
    labels = np.repeat([0, 1, 2], count)
    best = np.ones(3 * count, dtype=bool)
    gain, error = difference(best & (labels != 2), best, labels)
    assert gain == pytest.approx(1 / 3)
    # As many differ as McNemar's test counts: a difference of n has a standard error of sqrt(n).
    assert gain / error == pytest.approx(np.sqrt(count))


def test_pictures_that_both_answer_alike_make_no_doubt():
    labels = np.repeat([0, 1], 500)
    best = np.ones(1000, dtype=bool)
    worse = best.copy()
    worse[:20] = False
    # Twenty times better and never worse is no chance, though each score's own error is as large.
    assert simplest_within_one_error([worse, best], labels) == 1


def test_what_can_not_be_told_from_the_best_is_taken_if_it_is_simpler():
    labels = np.repeat([0, 1], 50)
    rng = np.random.default_rng(1)
    middle = answers(rng, (0.8, 0.8), labels)
    best = middle.copy()
    best[np.flatnonzero(~middle)[:1]] = True
    low = np.zeros(100, dtype=bool)
    assert simplest_within_one_error([low, middle, best], labels) == 1
    assert simplest_within_one_error([best, middle], labels) == 0
    assert simplest_within_one_error([low], labels) == 0


def test_one_picture_more_is_one_error_however_few_there_are():
    for count in (1, 2, 5):
        labels = np.repeat([0, 1, 2], count)
        best = np.ones(3 * count, dtype=bool)
        simple = best.copy()
        simple[-1] = False
        assert simplest_within_one_error([simple, best], labels) == 0
