from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vitreous.data.split import VALID_SHARE, assign_splits
from vitreous.errors import DataError


def divide(labels, named=None, groups=None, fingerprints=None, seed=0) -> list[str]:
    count = len(labels)
    return assign_splits(
        labels,
        named or [None] * count,
        groups or [None] * count,
        fingerprints or [str(index) for index in range(count)],
        seed,
    )


@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=5),
    seed=st.integers(0, 9),
    shuffle=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_class_gives_a_fifth(counts, seed, shuffle):
    labels = [str(label) for label, count in enumerate(counts) for _ in range(count)]
    np.random.default_rng(shuffle).shuffle(labels)
    splits = divide(labels, seed=seed)
    held = Counter(label for label, split in zip(labels, splits, strict=True) if split == "valid")
    assert set(splits) == {"train", "valid"}
    for label, count in enumerate(counts):
        assert held[str(label)] == max(1, round(count * VALID_SHARE))


def linked_by_scipy(groups, fingerprints) -> np.ndarray:
    """Connected pictures, by someone else's algorithm."""
    count = len(groups)
    names = {}
    edges = []
    for index, keys in enumerate(zip(groups, fingerprints, strict=True)):
        for kind, key in enumerate(keys):
            if key is not None:
                edges.append((index, count + names.setdefault((kind, key), len(names))))
    ends = np.array(edges).T
    shape = (count + len(names),) * 2
    graph = coo_array((np.ones(len(edges)), (ends[0], ends[1])), shape=shape)
    return connected_components(graph, directed=False)[1][:count]


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.none() | st.integers(0, 8).map(str),
            st.integers(0, 25).map(str),
        ),
        min_size=1,
        max_size=60,
    ),
    seed=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_groups_and_duplicates_are_never_parted(rows, seed):
    labels, groups, fingerprints = (list(column) for column in zip(*rows, strict=True))
    links = linked_by_scipy(groups, fingerprints)
    parts = {name: set(links[[label == name for label in labels]]) for name in set(labels)}
    if min(map(len, parts.values())) < 2:
        with pytest.raises(DataError, match="can't be divided"):
            divide(labels, None, groups, fingerprints, seed)
        return
    try:
        splits = divide(labels, None, groups, fingerprints, seed)
    except DataError:  # two parts of one class may block each other over the other classes
        assert min(map(len, parts.values())) == 2
        return
    for link in set(links):
        assert len({splits[index] for index in np.flatnonzero(links == link)}) == 1
    for name in parts:
        sides = {split for split, label in zip(splits, labels, strict=True) if label == name}
        assert sides == {"train", "valid"}


@given(
    sizes=st.lists(st.integers(1, 6), min_size=30, max_size=60),
    seed=st.integers(0, 5),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_with_many_groups_the_share_stays_near(sizes, seed):
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    labels = ["a" if int(group) % 2 else "b" for group in groups]
    splits = divide(labels, None, groups, None, seed)
    for name in "ab":
        mine = [split for split, label in zip(splits, labels, strict=True) if label == name]
        assert abs(mine.count("valid") - len(mine) * VALID_SHARE) <= 3


def test_a_large_group_is_better_than_hardly_any_picture():
    """Four groups of 100 and one of 1: a fifth is nearer to 101 than to 1."""
    groups = [str(index // 100) for index in range(401)] + [None] * 10
    labels = ["a"] * 401 + ["b"] * 10
    for seed in range(5):
        held = Counter(zip(labels, divide(labels, None, groups, None, seed), strict=True))
        assert held["a", "valid"] in (100, 101)
        assert held["b", "valid"] == 2


def test_groups_that_block_each_other_in_one_order_are_tried_in_another():
    """Ten classes in a ring of ten groups: only every second group will do."""
    labels = [name for group in range(10) for name in (str(group), str((group + 1) % 10))]
    groups = [str(group) for group in range(10) for _ in range(2)]
    for seed in range(10):
        splits = divide(labels, None, groups, None, seed)
        for name in set(labels):
            sides = {split for split, label in zip(splits, labels, strict=True) if label == name}
            assert sides == {"train", "valid"}


def test_a_seed_decides():
    labels = ["a", "b"] * 30
    assert divide(labels, seed=3) == divide(labels, seed=3)
    assert len({tuple(divide(labels, seed=seed)) for seed in range(6)}) == 6


def test_names_of_labels_groups_and_pixels_do_not_matter():
    """So a moved folder, whose files have other names, is divided alike."""
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b"], 60).tolist()
    groups = [str(value) if value < 12 else None for value in rng.integers(0, 20, 60)]
    prints = [str(value) for value in rng.integers(0, 50, 60)]
    first = divide(labels, None, groups, prints)
    renamed = divide(
        [{"a": "x", "b": "y"}[label] for label in labels],
        None,
        [group and f"person {group}" for group in groups],
        [f"{value}!" for value in prints],
    )
    assert first == renamed


def test_named_splits_stay():
    labels = ["a", "b"] * 10
    named = ["train", "valid", "test", None, "valid"] * 4
    assert divide(labels, named) == [name or "train" for name in named]
    # Even where a picture stands on both sides: the doctor tells, nothing is moved.
    assert divide(labels, named, None, ["same"] * 20) == [name or "train" for name in named]


def test_validation_is_taken_from_training_where_none_is_named():
    labels = ["a"] * 50 + ["b"] * 50
    named = (["train"] * 40 + ["test"] * 10) * 2
    prints = [str(index) for index in range(100)]
    prints[0:3] = prints[40:43]  # three training pictures that the test has too
    for seed in range(5):
        splits = divide(labels, named, None, prints, seed)
        assert [split == "test" for split in splits] == [name == "test" for name in named]
        assert splits[0:3] == ["train"] * 3
        held = Counter(zip(labels, splits, strict=True))
        assert held["a", "valid"] == round(37 * VALID_SHARE)
        assert held["b", "valid"] == 8


@pytest.mark.parametrize(
    ("labels", "groups", "prints", "name"),
    [
        (["a", "b", "b"], None, None, "a"),
        (["a", "b", "b", "b"], [None, "g", "g", "g"], None, "a"),
        (["a", "a", "b", "b"], None, ["0", "1", "same", "same"], "b"),
        (["a", "a", "b", "b"], ["g", "g", None, None], None, "a"),
    ],
)
def test_a_class_too_small_to_divide_is_named(labels, groups, prints, name):
    with pytest.raises(DataError, match=f"class '{name}' has . picture.s. that can't be divided"):
        divide(labels, None, groups, prints)


def test_groups_that_can_not_be_divided_at_all_are_told():
    """Three classes in a ring of three groups: one class always lacks a side."""
    labels, groups = list("abbcca"), list("112233")
    with pytest.raises(DataError, match="as long as groups stay whole"):
        divide(labels, None, groups)
