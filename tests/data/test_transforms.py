import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vitreous.data import transforms as module
from vitreous.data.config import NO_AUGMENTATION, AugmentConfig
from vitreous.data.transforms import affine_grid, augment
from vitreous.errors import ConfigError

#: Everything chosen, nothing strong.
STILL = AugmentConfig(
    flip=0.0, shift=0.0, scale=0.0, aspect=0.0, rotate_degrees=0.0, shear_degrees=0.0,
    affine_chance=1.0, brightness=0.0, contrast=0.0, saturation=0.0, color_chance=1.0,
    erase_chance=0.0,
)  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch(photo) -> Tensor:
    """Eight different pictures that aren't square, normalised to about [-1, 1]."""
    pictures = np.stack([photo(24, 36, seed) for seed in range(8)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture
def extreme(monkeypatch):
    """All uniform draws of strengths at their limit, times a sign."""

    def fix(sign: float) -> None:
        monkeypatch.setattr(
            module, "_uniform", lambda limit, draws: torch.full_like(draws.rand(), sign * limit)
        )

    return fix


def test_nothing_on_changes_nothing(batch):
    before = batch.clone()
    assert torch.equal(augment(batch, NO_AUGMENTATION, generator()), before)
    torch.testing.assert_close(
        augment(batch, STILL, generator()), before, atol=1e-5, rtol=0, check_stride=False
    )
    assert torch.equal(batch, before)


@pytest.mark.parametrize("affine_chance", [0.0, 1.0])
def test_a_flip_alone_is_the_exact_mirror(batch, affine_chance):
    got = augment(batch, replace(STILL, flip=1.0, affine_chance=affine_chance), generator())
    torch.testing.assert_close(got, batch.flip(-1), atol=0 if not affine_chance else 1e-5, rtol=0)


def test_half_the_pictures_are_flipped():
    images = torch.arange(4.0).expand(2000, 3, 2, 4).contiguous()
    got = augment(images, replace(NO_AUGMENTATION, flip=0.5), generator())
    flipped = (got == images.flip(-1)).all(3).all(2).all(1)
    assert (flipped | (got == images).all(3).all(2).all(1)).all()
    assert 0.45 < flipped.float().mean() < 0.55


def test_a_turn_by_90_degrees_is_numpys_rot90(extreme, batch):
    """A square part in the middle of a wide picture turns into itself only if pixels are square."""
    extreme(1.0)
    config = replace(STILL, rotate_degrees=90.0)
    got = augment(batch, config, generator()).numpy()
    middle = slice(6, 30)
    expected = np.rot90(batch.numpy()[:, :, :, middle], axes=(2, 3))
    np.testing.assert_allclose(got[:, :, :, middle], expected, atol=1e-4)
    extreme(-1.0)
    back = augment(torch.from_numpy(got), config, generator()).numpy()
    np.testing.assert_allclose(back[:, :, :, middle], batch.numpy()[:, :, :, middle], atol=1e-4)


@pytest.mark.parametrize(("sign", "rows", "columns"), [(1.0, 6, 9), (-1.0, -6, -9)])
def test_a_shift_moves_by_its_share_of_each_side(extreme, batch, sign, rows, columns):
    extreme(sign)
    got = augment(batch, replace(STILL, shift=0.25), generator()).numpy()
    moved = np.roll(batch.numpy(), (-rows, -columns), (2, 3))
    inside = (..., slice(*((0, 18) if sign > 0 else (6, 24))),
              slice(*((0, 27) if sign > 0 else (9, 36))))  # fmt: skip
    np.testing.assert_allclose(got[inside], moved[inside], atol=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    "strength",
    [
        {"rotate_degrees": 20.0},
        {"shear_degrees": 15.0},
        {"scale": 0.3},
        {"aspect": 0.4},
        {"shift": 0.1},
        {"rotate_degrees": 10.0, "shear_degrees": 8.0, "scale": 0.1, "aspect": 0.2, "shift": 0.05},
        {"flip": 1.0, "rotate_degrees": 10.0, "shear_degrees": 8.0, "scale": 0.1},
    ],
)
def test_geometry_is_pillows_affine_map(extreme, batch, strength, sign):
    """The matrix is made anew here in pixels about the centre, and Pillow does the resampling."""
    extreme(sign)
    config = replace(STILL, **strength)
    got = augment(batch, config, generator())
    height, width = batch.shape[-2:]
    angle = math.radians(config.rotate_degrees) * sign
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1, math.tan(math.radians(config.shear_degrees) * sign)], [0, 1]])
    scale, aspect = (1 + config.scale) ** sign, (1 + config.aspect) ** (sign / 2)
    stretch = np.diag([scale * aspect, scale / aspect])
    mirror = np.diag([-1.0 if config.flip else 1.0, 1.0])
    matrix = stretch @ turn @ shear @ mirror
    centre = np.array([width / 2, height / 2])
    offset = centre - matrix @ centre + sign * config.shift * np.array([width, height])
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    y, x = np.mgrid[0:height, 0:width] + 0.5
    from_x, from_y = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y])) + offset[:, None, None]
    # Pillow blends the border with nothing; we mirror it. Compared is what comes from inside.
    inside = (from_x > 1) & (from_x < width - 1) & (from_y > 1) & (from_y < height - 1)
    assert inside.mean() > 0.4
    for channel in range(3):
        plane = Image.fromarray(batch[0, channel].numpy())
        expected = np.asarray(
            plane.transform((width, height), Image.Transform.AFFINE, data,
                            Image.Resampling.BILINEAR)
        )  # fmt: skip
        np.testing.assert_allclose(
            got[0, channel].numpy()[inside], expected[inside], atol=2e-3, rtol=0
        )


def test_the_border_is_mirrored(extreme):
    extreme(1.0)
    images = torch.arange(8.0).expand(1, 3, 8, 8).contiguous()
    got = augment(images, replace(STILL, shift=0.25), generator())
    torch.testing.assert_close(got[0, 0, 0], torch.tensor([2.0, 3, 4, 5, 6, 7, 7, 6]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_colour_is_the_plain_formula(extreme, batch, sign):
    extreme(sign)
    config = replace(STILL, brightness=0.2, contrast=0.3, saturation=0.4, affine_chance=0.0)
    got = augment(batch, config, generator())
    for picture, result in zip(batch.double().numpy(), got.double().numpy(), strict=True):
        grey = picture.mean(0, keepdims=True)
        saturated = grey + (1 + 0.4 * sign) * (picture - grey)
        contrasted = grey.mean() + (1 + 0.3 * sign) * (saturated - grey.mean())
        np.testing.assert_allclose(result, contrasted + 0.2 * sign, atol=1e-5)


def test_every_picture_is_changed_on_its_own(batch):
    config = replace(AugmentConfig(), affine_chance=1.0, color_chance=1.0, erase_chance=0.0)
    same = batch[:1].expand(8, -1, -1, -1).contiguous()
    got = augment(same, config, generator())
    for one in range(8):
        for other in range(one):
            assert not torch.allclose(got[one], got[other], atol=1e-3)


def test_a_generator_decides(batch):
    config = replace(AugmentConfig(), erase_chance=1.0)
    first = augment(batch, config, generator(4))
    assert torch.equal(first, augment(batch, config, generator(4)))
    assert not torch.allclose(first, augment(batch, config, generator(5)))


def with_draws(monkeypatch, images: Tensor, config: AugmentConfig) -> dict[int, list[Tensor]]:
    """The random numbers as they are drawn, keyed by their place in the row of draws."""
    draws = {}
    rand = torch.rand

    def record(*shape, **options):
        value = rand(*shape, **options)
        draws[len(draws)] = value
        return value

    monkeypatch.setattr(torch, "rand", record)
    augment(images, config, generator(7))
    monkeypatch.undo()
    return draws


@pytest.mark.parametrize(
    "off",
    [
        {"flip": 0.0},
        {"affine_chance": 0.0},
        {"rotate_degrees": 0.0, "shift": 0.0},
        {"color_chance": 0.0},
        {"contrast": 0.0},
        {"erase_chance": 0.0},
    ],
)
def test_turning_one_change_off_leaves_the_other_draws(monkeypatch, batch, off):
    config = replace(AugmentConfig(), erase_chance=0.5)
    usual = with_draws(monkeypatch, batch, config)
    changed = with_draws(monkeypatch, batch, replace(config, **off))
    assert len(usual) == len(changed) > 10
    for place, draw in usual.items():
        assert torch.equal(draw, changed[place])


def test_colour_is_the_same_with_and_without_geometry(batch):
    even = batch.mean((2, 3), keepdim=True).expand_as(batch).contiguous()
    config = replace(AugmentConfig(), erase_chance=0.0)
    both = augment(even, config, generator(3))
    alone = augment(even, replace(config, affine_chance=0.0, flip=0.0), generator(3))
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(both, even, atol=1e-2)


def test_plain_leaves_only_erasing_out(batch):
    config = replace(AugmentConfig(), erase_chance=1.0)
    plain = augment(batch, config, generator(2), plain=True)
    assert torch.equal(plain, augment(batch, replace(config, erase_chance=0.0), generator(2)))
    assert not torch.equal(plain, augment(batch, config, generator(2)))


def test_erasing_takes_one_rectangle_of_2_to_20_percent():
    images = torch.full((400, 3, 40, 60), 9.0)
    config = replace(NO_AUGMENTATION, erase_chance=1.0)
    got = augment(images, config, generator())
    changed = (got != 9).any(1)
    shares, ratios = [], []
    for mask in changed:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])
        for line in (rows, columns):
            places = line.nonzero().flatten()
            assert len(places) == places.max() - places.min() + 1
        shares.append(mask.float().mean().item())
        ratios.append((rows.sum() / 40 / (columns.sum() / 60)).item())
    assert 0.02 - 0.012 < min(shares) < 0.03
    assert 0.19 < max(shares) < 0.20 + 0.012
    assert min(ratios) > 1 / 3.6
    assert max(ratios) < 3.6
    noise = got[changed[:, None].expand_as(got)]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    # Anywhere: each row and column is sometimes taken.
    assert changed.any(0).any(0).all()
    assert changed.any(0).any(1).all()


def test_chances_are_shares_of_the_pictures(batch):
    images = batch[:1].expand(1000, -1, -1, -1).contiguous()
    for name in ("affine_chance", "color_chance", "erase_chance"):
        config = replace(NO_AUGMENTATION, flip=0.0, **{name: 0.3})
        got = augment(images, config, generator(1))
        changed = (got - images).abs().amax((1, 2, 3)) > 1e-4
        assert 0.25 < changed.float().mean() < 0.35


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.1},
        {"erase_chance": -0.1},
        {"mix_chance": math.nan},
        {"scale": 1.0},
        {"contrast": -0.2},
        {"shift": -0.1},
        {"rotate_degrees": math.inf},
        {"shear_degrees": 90.0},
        {"mixup_alpha": -1.0},
    ],
)
def test_strengths_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=rf"augment\.{next(iter(wrong))} is"):
        AugmentConfig(**wrong)


def test_the_grid_is_pytorchs():
    theta = torch.randn(5, 2, 3, generator=generator())
    wanted = F.affine_grid(theta, [5, 1, 7, 12], align_corners=False)
    torch.testing.assert_close(affine_grid(theta, 7, 12), wanted, atol=1e-6, rtol=1e-6)
