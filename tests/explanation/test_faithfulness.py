"""A map is worth what blurring in its order does, told by models whose answer is known."""

import numpy as np
import pytest
from sklearn.metrics import auc

from vitreous.evaluation.intervals import Interval
from vitreous.explanation.faithfulness import Faithfulness, blur, chance_gain, measure
from vitreous.explanation.result import Check

PATCH = (8, 8)


@pytest.fixture
def picture() -> np.ndarray:
    """Stripes of a pixel, which a blur takes away, in 16 patches."""
    stripes = np.full((32, 32, 3), 255, np.uint8)
    stripes[::2] = 0
    return stripes


def sharpness(pictures: np.ndarray) -> np.ndarray:
    """How sharp each patch is, from 0 to 1: (pictures, 16)."""
    patches = pictures[..., 0].astype(float).reshape(-1, 4, 8, 4, 8)
    return np.abs(np.diff(patches, axis=2)).mean(axis=(2, 4)).reshape(-1, 16) / 255


def test_curves_are_those_of_a_model_that_adds_its_patches_up(picture):
    weights = np.random.default_rng(0).dirichlet(np.ones(16))

    def answer(pictures):
        return sharpness(pictures) @ weights

    (found,) = measure(answer, picture, [weights], PATCH)
    share = np.sort(weights)[::-1].cumsum()[1::2]  # 2, 4, ... 16 patches
    points = np.linspace(0, 1, 9)
    # Blurred patches are not quite flat.
    assert found.insertion == pytest.approx(auc(points, np.r_[0, share]), abs=0.01)
    assert found.deletion == pytest.approx(auc(points, np.r_[1, 1 - share]), abs=0.01)
    assert found.gain == pytest.approx((found.insertion - found.deletion) / 2)
    assert found.gain > 0.1


def test_the_best_order_gains_what_the_worst_loses_and_random_ones_gain_nothing(picture):
    weights = np.linspace(0, 1, 16) ** 3
    weights /= weights.sum()

    def answer(pictures):
        return np.sqrt(sharpness(pictures) @ weights)

    rng = np.random.default_rng(0)
    maps = [weights, -weights, *(rng.random(16) for _ in range(200))]
    best, worst, *drawn = measure(answer, picture, maps, PATCH, random_orders=200)
    gains = np.array([each.gain for each in drawn])
    assert best.gain == pytest.approx(-worst.gain, abs=1e-6)
    assert best.gain > 0.2
    assert abs(gains.mean()) < 3 * gains.std() / np.sqrt(200)
    assert best.luck == pytest.approx(gains.std(), rel=0.2)
    assert best.random == pytest.approx(np.mean([each.insertion for each in drawn]), abs=0.02)
    assert (gains > 1.645 * best.luck).mean() < 0.1


def test_the_same_seed_draws_the_same_orders(picture):
    def answer(pictures):
        return sharpness(pictures)[:, 3]

    one, again = (measure(answer, picture, [np.ones(16)], PATCH) for _ in range(2))
    other = measure(answer, picture, [np.ones(16)], PATCH, seed=1)
    assert one == again != other


def test_a_blur_leaves_an_even_picture_and_takes_stripes_away(picture):
    even = np.full((32, 48, 3), (10, 200, 90), np.uint8)
    assert np.array_equal(blur(even, PATCH), even)
    soft = blur(picture, PATCH)
    assert soft.shape == picture.shape
    assert np.abs(np.diff(soft.astype(int), axis=0)).max() < 10
    wide = np.zeros((64, 64, 3), np.uint8)
    wide[:, 32:] = 255
    assert len(np.unique(blur(wide, (2, 8))[0, :, 0])) > 20  # across by the patch's width
    assert len(np.unique(blur(wide.transpose(1, 0, 2), (2, 8))[:, 0, 0])) < 20


@pytest.mark.parametrize(
    ("gain", "luck", "alike", "passed", "words"),
    [
        (0.2, 0.05, 0.1, True, "better than random order by 0.20"),
        (0.04, 0.05, 0.1, False, "no better than random order (+0.04)"),
        (-0.2, 0.05, 0.1, False, "no better than random order (-0.20)"),
        (0.2, 0.05, 0.7, False, "hardly changes when the weights are shuffled (alike 0.70)"),
        (0.0, 0.05, 0.9, False, "no better than random order (+0.00), hardly changes"),
    ],
)
def test_a_check_says_what_failed(gain, luck, alike, passed, words):
    check = Check(Interval(gain, gain - 0.1, gain + 0.1), luck, alike)
    assert check.passed == passed
    assert words in str(check)
    assert check.to_json()["passed"] == passed


def test_gain_is_the_mean_of_what_both_ways_are_better_than_random():
    found = Faithfulness(insertion=0.8, deletion=0.3, random=0.6, drawn=(0.05, -0.05))
    above, below = found.insertion - found.random, found.random - found.deletion
    assert found.gain == pytest.approx((above + below) / 2)


@pytest.mark.parametrize("one_order", [False, True])
@pytest.mark.parametrize(("pictures", "orders"), [(1, 4), (1, 2), (10, 4), (8, 2)])
def test_a_map_that_knows_nothing_passes_in_one_case_of_twenty(one_order, pictures, orders):
    """Pictures whose patches count in part for the same, as where subjects are in the middle."""
    rng = np.random.default_rng(0)
    cases, passed = 3000, 0
    for _ in range(cases):
        weights = rng.random(16) + rng.random((pictures, 16))
        ranks = np.array([rng.permutation(16) for _ in range(pictures)])
        mine = np.repeat(ranks[:1], pictures, axis=0) if one_order else ranks
        theirs = np.array([rng.permutation(16) for _ in range(orders)])
        # Of a model that adds its patches up: those that come back first count longest.
        found = [
            Faithfulness(
                gain := float((7.5 - own) @ weight), -gain, 0.0, tuple((7.5 - theirs) @ weight)
            )
            for own, weight in zip(mine, weights, strict=True)
        ]
        passed += np.mean([each.gain for each in found]) > chance_gain(found)
    assert passed / cases < 0.06
    # Nor does it take far more than that: of a single picture the quantile is exact.
    assert passed / cases > (0.035 if pictures == 1 else 0.0)


def test_a_map_that_has_one_order_for_all_pictures_is_held_against_such_orders(picture):
    """The same picture ten times is one picture: ten times as many gains say nothing more."""

    def answer(pictures):
        return sharpness(pictures) @ np.linspace(0, 0.1, 16)

    (found,) = measure(answer, picture, [np.arange(16.0)], PATCH)
    assert chance_gain([found] * 10) == pytest.approx(chance_gain([found]))
    assert chance_gain([found]) == pytest.approx(2.132 * found.luck, rel=1e-3)  # of a table of t


def test_orders_that_cancel_over_the_pictures_say_how_far_other_orders_go():
    found = [Faithfulness(0.5, 0.5, 0.5, drawn) for drawn in ((0.1, -0.3), (-0.1, 0.3))]
    assert chance_gain(found) == pytest.approx(2.132 * np.sqrt(0.05 / 2), rel=1e-3)
