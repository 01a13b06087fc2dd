import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.data.loader import PictureSet, TrainingOrder, some_of_each_class


@pytest.fixture
def pictures() -> PictureSet:
    """Five of nine pictures; each is filled with the number of its row, its label is that + 1."""
    pixels = np.broadcast_to(np.arange(9, dtype=np.uint8)[:, None, None, None], (9, 2, 4, 3))
    rows = np.array([7, 2, 5, 0, 8])
    return PictureSet(pixels, rows, torch.from_numpy(rows + 1), tuple("abcde"))


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    most=st.integers(1, 70),
    each=st.integers(1, 4),
    seed=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_some_of_each_class_are_chosen(labels, most, each, seed):
    found = some_of_each_class(torch.tensor(labels), most, np.random.default_rng(seed), each)
    assert sorted(set(found.tolist())) == found.tolist()
    for name in set(labels):
        assert np.sum(np.array(labels)[found] == name) >= min(each, labels.count(name))
    assert min(most, len(labels)) <= len(found)
    assert len(found) <= min(len(labels), most + each * len(set(labels)))


def test_which_are_chosen_is_chance():
    labels = torch.tensor([0] * 1000 + [1] * 5)
    one, other = (some_of_each_class(labels, 50, np.random.default_rng(n), 2) for n in (0, 1))
    assert len(set(one) & set(other)) < 20
    assert all((found[:-2] < 1000).all() and (found[-2:] >= 1000).all() for found in (one, other))


@given(
    count=st.integers(1, 50),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_each_epoch_sees_each_picture_once(count, batch_size, seed):
    order = TrainingOrder(count, batch_size, seed)
    steps = [order.step(step) for step in range(3 * count // batch_size + 1)]
    assert {len(step) for step in steps} == {batch_size}
    row = [position for step in steps for position in step]
    for epoch in range(len(row) // count):
        assert sorted(row[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_step_does_not_depend_on_the_steps_before(steps):
    travelled = TrainingOrder(23, 5, 0)
    for step in steps:
        assert travelled.step(step) == TrainingOrder(23, 5, 0).step(step)


def test_epochs_and_seeds_differ():
    row = [TrainingOrder(30, 30, seed).step(epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in row}) == 9
    assert all(type(position) is int for position in row[0])


def test_any_batch_size_walks_the_same_row():
    rows = []
    for batch_size in (1, 4, 6, 12):
        order = TrainingOrder(7, batch_size, 3)
        rows.append([position for step in range(24 // batch_size) for position in order.step(step)])
    assert all(row == rows[0] for row in rows)


def test_a_batch_has_the_pictures_and_their_labels(pictures):
    assert len(pictures) == 5
    for positions in ([3, 0, 0, 4], np.array([1]), range(5)):
        pixels, labels = pictures.batch(positions)
        assert pixels.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert pixels.shape == (len(positions), 2, 4, 3)
        assert torch.equal(pixels[:, 0, 0, 0].long() + 1, labels)
        assert labels.tolist() == [[8, 3, 6, 1, 9][position] for position in positions]


def test_a_batch_is_a_copy(pictures, tmp_path):
    np.save(tmp_path / "pixels.npy", np.ascontiguousarray(pictures.pixels))
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    part = PictureSet(mapped, pictures.rows, pictures.labels, pictures.paths)
    pixels, _ = part.batch([0, 1])
    pixels.zero_()
    assert mapped[7].min() == 7


def test_the_majority_class_is_the_most_frequent():
    labels = torch.tensor([2, 0, 2, 1, 2, 0])
    part = PictureSet(np.zeros((6, 1, 1, 3), np.uint8), np.arange(6), labels, tuple("abcdef"))
    assert part.majority_class == 2
