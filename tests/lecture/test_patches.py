"""`extract_patches` against TensorFlow's, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.errors import ConfigError
from vitreous.lecture import draw_patches, extract_patches

SMALL = st.integers(1, 6)


@settings(max_examples=250, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    channels=st.integers(1, 4),
    sizes=st.tuples(SMALL, SMALL),
    strides=st.tuples(SMALL, SMALL),
    rates=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.sampled_from(["VALID", "SAME"]),
)
def test_any_window_is_tensorflows(
    tf, batch, height, width, channels, sizes, strides, rates, padding
):
    images = np.random.default_rng(0).normal(size=(batch, height, width, channels))
    images = images.astype(np.float32)
    numbers = [[1, *pair, 1] for pair in (sizes, strides, rates)]
    try:
        theirs = tf.image.extract_patches(images, *numbers, padding).numpy()
    except tf.errors.InvalidArgumentError:  # the window is larger than the picture
        with pytest.raises(ConfigError, match="more than the picture"):
            extract_patches(torch.from_numpy(images), *numbers, padding)
        return
    ours = extract_patches(torch.from_numpy(images), *numbers, padding).numpy()
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()


def test_the_documentations_example_has_gaps_between_and_inside_its_patches(tf):
    images = np.arange(1, 101, dtype=np.float32).reshape(1, 10, 10, 1)
    numbers = [1, 3, 3, 1], [1, 5, 5, 1], [1, 2, 2, 1]
    ours = extract_patches(torch.from_numpy(images), *numbers, "VALID")
    assert (
        ours.numpy().tolist()
        == tf.image.extract_patches(images, *numbers, "VALID").numpy().tolist()
    )
    assert ours[0, 0, 0].tolist() == [1, 3, 5, 21, 23, 25, 41, 43, 45]


def test_the_lectures_grid_and_its_sequence():
    images = torch.rand(1, 256, 256, 3)
    patches = extract_patches(images, [1, 16, 16, 1], [1, 16, 16, 1], [1, 1, 1, 1], "VALID")
    assert patches.shape == (1, 16, 16, 768)
    assert patches.reshape(1, -1, 768).shape == (1, 256, 768)


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((256, 256, 3), [1, 16, 16, 1], "add the batch axis"),
        ((1, 256, 256, 3), [16, 16], "it has the form"),
        ((1, 256, 256, 3), [1, 16, 16, 3], "it has the form"),
        ((1, 256, 256, 3), [1, 0, 16, 1], "at least 1"),
    ],
)
def test_what_is_wrong_is_said(shape, sizes, message):
    with pytest.raises(ConfigError, match=message):
        extract_patches(torch.zeros(shape), sizes, [1, 16, 16, 1], [1, 1, 1, 1], "VALID")


def test_an_unknown_padding_is_refused():
    square = [1, 2, 2, 1]
    with pytest.raises(ConfigError, match="VALID or SAME"):
        extract_patches(torch.zeros(1, 4, 4, 3), square, square, [1, 1, 1, 1], "valid")


def test_the_drawing_of_the_grid_and_of_the_sequence_are_one_and_hold_every_patch():
    images = torch.randint(0, 256, (1, 48, 64, 3)).float()
    patches = extract_patches(images, [1, 16, 16, 1], [1, 16, 16, 1], [1, 1, 1, 1], "VALID")[0]
    grid = draw_patches(patches, gap=2)
    assert grid.equal(draw_patches(patches.reshape(-1, 768), columns=4, gap=2))
    assert grid.shape == (3 * 18 + 2, 4 * 18 + 2, 3)
    for row in range(3):
        for column in range(4):
            top, left = 2 + 18 * row, 2 + 18 * column
            shown = grid[top : top + 16, left : left + 16]
            there = images[0, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert shown.equal(there.to(torch.uint8))
    assert (grid[:2] == 255).all()
    assert (grid[18:20] == 255).all()
    assert draw_patches(patches, gap=0).equal(images[0].to(torch.uint8))


@pytest.mark.parametrize("shape", [(10, 768), (2, 5, 767), (768,)])
def test_what_makes_no_drawing_is_refused(shape):
    with pytest.raises(ConfigError):
        draw_patches(torch.zeros(shape))
