import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vitreous.evaluation.intervals import (
    mean_interval,
    mean_share_interval,
    proportion_interval,
    total_interval,
)


def test_wilson_by_its_formula():
    # Wilson 1927, written out
    z, hits, total = 1.959963984540054, 26, 60
    share = hits / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    found = proportion_interval(hits, total)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_value_and_stays_within_0_and_1(pair):
    found = proportion_interval(*pair)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.low < found.high


def test_nothing_seen_leaves_everything_open():
    found = proportion_interval(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)


def test_the_mean_of_one_is_itself():
    part = proportion_interval(3, 7)
    found = mean_interval([part])
    assert (found.low, found.high) == pytest.approx((part.low, part.high))


@pytest.mark.parametrize(
    ("sizes", "recalls"),
    [
        ((40, 40, 40), (0.6, 0.8, 0.9)),
        ((10, 60, 30), (0.9, 0.95, 0.7)),
        ((5, 5), (0.8, 0.9)),
        ((95, 5), (0.98, 0.5)),
        ((10,) * 10, (0.98, 0.96) * 5),  # classes that are all right leave no room above
        ((5,) * 100, (0.9, 0.8, 0.95, 0.7) * 25),
        ((1,) * 200, (0.3, 0.5, 0.7, 0.6) * 50),
    ],
)
def test_balanced_accuracy_is_covered_as_promised(sizes, recalls):
    rng = np.random.default_rng(0)
    truth, covered, draws = float(np.mean(recalls)), 0, 1000
    for _ in range(draws):
        hits = rng.binomial(sizes, recalls)
        found = mean_share_interval(hits.tolist(), sizes)
        assert found.value == pytest.approx(np.mean(hits / sizes))
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / draws <= 0.99


def test_the_mean_of_no_shares_leaves_everything_open():
    assert mean_share_interval([], []).low == 0.0
    assert mean_share_interval([], []).high == 1.0


@pytest.mark.parametrize(
    ("hits", "total"), [(0, 1), (1, 1), (3, 7), (0, 40), (40, 40), (999, 1000)]
)
def test_wilson_is_scipys(hits, total):
    bounds = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    found = proportion_interval(hits, total)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), abs=1e-12)


@pytest.mark.parametrize(
    ("seen", "sizes", "shares"),
    [((200, 100), (300, 120), (0.1, 0.05)), ((30, 400, 50), (60, 500, 50), (0.2, 0.02, 0.1))],
)
def test_a_total_is_covered_as_promised(seen, sizes, shares):
    """Of each part some pictures are seen, and what is asked is how many there are in all."""
    rng = np.random.default_rng(0)
    truth, covered, draws = float(np.dot(sizes, shares)), 0, 2000
    for _ in range(draws):
        parts = [proportion_interval(int(rng.binomial(n, share)), n)
                 for n, share in zip(seen, shares, strict=True)]  # fmt: skip
        found = total_interval(parts, sizes)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / draws <= 0.99


def test_a_total_is_none_and_all_at_most():
    assert total_interval([proportion_interval(0, 5)], [5]).low == 0
    assert total_interval([proportion_interval(5, 5)], [5]).high == 5
