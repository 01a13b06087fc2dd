from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitreous.data import preprocess as module
from vitreous.data.preprocess import Preprocess, fit, normalise, seen_part
from vitreous.errors import ConfigError

PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SIDE = st.integers(1, 80)


def fit_by_pillow(picture: np.ndarray, settings: Preprocess) -> np.ndarray:
    """Cover and crop with exact fractions and Pillow's own resize."""
    cover = settings.resize or settings.image_size
    height, width = picture.shape[:2]
    scale = max(Fraction(cover[0], height), Fraction(cover[1], width))
    tall, wide = (int(side * scale) for side in (height, width))
    resized = Image.fromarray(picture).resize((wide, tall), PILLOW[settings.interpolation])
    top, left = (tall - settings.image_size[0]) // 2, (wide - settings.image_size[1]) // 2
    box = (left, top, left + settings.image_size[1], top + settings.image_size[0])
    return np.asarray(resized.crop(box))


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((300, 200), {"image_size": (32, 32)}),
        ((200, 301), {"image_size": (48, 64)}),
        ((33, 29), {"image_size": (64, 64)}),
        ((64, 64), {"image_size": (24, 24)}),
        ((100, 150), {"image_size": (28, 28), "resize": (32, 32)}),
        ((50, 40), {"image_size": (40, 20), "resize": (60, 60)}),
        ((7, 90), {"image_size": (16, 16)}),
    ],
)
def test_fit_is_pillows_resize_within_one_grey_level(photo, size, settings, interpolation):
    settings = Preprocess(**settings, interpolation=interpolation)
    picture = photo(*size)
    difference = fit(picture, settings).astype(int) - fit_by_pillow(picture, settings)
    assert np.abs(difference).max() <= 2
    assert (np.abs(difference) > 1).mean() < 1e-3  # PyTorch's bytes aren't Pillow's everywhere
    assert abs(difference.mean()) < 0.25  # Pillow rounds twice, and halves upwards


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=st.tuples(SIDE, SIDE) | st.sampled_from([(1, 200), (200, 1), (2, 333)]),
    target=st.tuples(SIDE, SIDE),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    seed=st.integers(0, 99),
)
def test_fit_gives_exactly_the_wanted_size(size, target, interpolation, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = picture.copy()
    got = fit(picture, Preprocess(image_size=target, interpolation=interpolation))
    assert got.shape == (*target, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert np.array_equal(picture, before)
    # What the picture doesn't have can't come out, but for the overshoot of the cubic.
    if interpolation == "bilinear":
        assert got.min() >= picture.min()
        assert got.max() <= picture.max()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(size=st.tuples(SIDE, SIDE), seed=st.integers(0, 99))
def test_a_picture_of_the_right_size_stays_as_it_is(size, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.array_equal(fit(picture, Preprocess(image_size=size)), picture)
    half = (size[0] // 2 + 1, size[1] // 2 + 1)
    cropped = fit(picture, Preprocess(image_size=half, resize=size))
    top, left = (size[0] - half[0]) // 2, (size[1] - half[1]) // 2
    assert np.array_equal(cropped, picture[top : top + half[0], left : left + half[1]])


def test_a_mirrored_picture_gives_the_mirrored_result(photo):
    picture, settings = photo(90, 64), Preprocess(image_size=(32, 32))
    assert np.array_equal(fit(np.ascontiguousarray(picture[:, ::-1]), settings),
                          fit(picture, settings)[:, ::-1])  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_an_even_picture_stays_even(level):
    picture = np.full((37, 91, 3), level, np.uint8)
    assert (fit(picture, Preprocess(image_size=(24, 40))) == level).all()


@pytest.mark.parametrize("size", [(1, 3000), (3001, 1), (2, 5001), (500, 9)])
def test_a_very_long_picture_is_never_scaled_up_whole(photo, size, monkeypatch):
    taken = []
    resize = module.F.interpolate

    def watch(planes, shape, **options):
        taken.append(shape[0] * shape[1])
        return resize(planes, shape, **options)

    monkeypatch.setattr(module.F, "interpolate", watch)
    settings = Preprocess(image_size=(32, 24))
    picture = photo(*size)
    got = fit(picture, settings)
    assert 32 * 24 <= max(taken) < 20 * 32 * 24
    expected = fit_by_pillow(picture, settings)
    assert np.abs(got.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (64, 64), (300, 40)])
def test_the_part_seen_is_the_part_kept(size):
    """Found by the coordinates themselves: a picture of ramps says where its pixels lay."""
    height, width = size
    down, across = np.mgrid[0:height, 0:width]
    ramps = np.stack([255 * down / height, 255 * across / width, 0 * down], 2).astype(np.uint8)
    preprocess = Preprocess((32, 24), resize=(40, 36))
    kept = fit(ramps, preprocess).astype(float) / 255
    left, top, wide, high = seen_part(height, width, preprocess)
    for axis, low, share in ((0, top, high), (1, left, wide)):
        values = kept[..., axis].mean(1 - axis)
        assert values[0] == pytest.approx(low + share / 2 / len(values), abs=0.02)
        assert values[-1] == pytest.approx(low + share - share / 2 / len(values), abs=0.02)


def test_normalise_is_the_formula():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    settings = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = (pixels / 255 - np.array(settings.mean)) / np.array(settings.std)
    for given_pixels in (torch.from_numpy(pixels), torch.from_numpy(pixels).double()):
        got = normalise(given_pixels, settings)
        assert got.dtype == torch.float32
        assert got.shape == (3, 3, 5, 4)
        assert got.is_contiguous()
        np.testing.assert_allclose(got.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_size": (0, 4)}, "at least 1 px"),
        ({"image_size": (8, 8), "resize": (8, 7)}, "smaller than image_size"),
        ({"std": (0.5, 0.0, 0.5)}, "above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Preprocess(**settings)
