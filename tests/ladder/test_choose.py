import numpy as np
import pytest

from vitreous.ladder.choose import difference, simplest_within_one_error


def answers(rng, shares, labels):
    """Right answers, in each class as often as its share says."""
    return rng.random(len(labels)) < np.array(shares)[labels]


def test_the_error_is_that_of_a_bootstrap_over_the_same_pictures():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [400, 100, 50])
    one = answers(rng, (0.9, 0.7, 0.6), labels)
    other = one | answers(rng, (0.1, 0.2, 0.3), labels)  # right wherever the first is
    gain, error = difference(one, other, labels)
    drawn = []
    for _ in range(4000):
        again = np.concatenate(
            [rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in range(3)]
        )
        recalls = [(other[again] * 1.0 - one[again])[labels[again] == c].mean() for c in range(3)]
        drawn.append(np.mean(recalls))
    assert gain == pytest.approx(np.mean(drawn), abs=0.002)
    assert error == pytest.approx(np.std(drawn), rel=0.05)


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
