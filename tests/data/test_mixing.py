from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitreous.data.config import AugmentConfig
from vitreous.data.mixing import mix, smooth

ALWAYS = AugmentConfig(mix_chance=1.0, mixup_alpha=0.8, cutmix_alpha=1.0)
MIXUP = replace(ALWAYS, cutmix_alpha=0.0)
CUTMIX = replace(ALWAYS, mixup_alpha=0.0)


def numbered(count: int = 6, height: int = 10, width: int = 14):
    """Pictures filled with their own number, each of its own class."""
    images = torch.arange(float(count))[:, None, None, None].expand(-1, 3, height, width)
    return images.contiguous(), torch.eye(count)


def test_smoothing_is_pytorchs_own():
    logits, labels = torch.randn(4, 3), torch.tensor([2, 0, 1, 2])
    targets = torch.eye(3)[labels]
    assert torch.equal(smooth(targets, 0.0), targets)
    smoothed = smooth(targets, 0.12)
    torch.testing.assert_close(smoothed.sum(1), torch.ones(4))
    torch.testing.assert_close(
        F.cross_entropy(logits, smoothed), F.cross_entropy(logits, labels, label_smoothing=0.12)
    )


@pytest.mark.parametrize(
    "config",
    [
        replace(ALWAYS, mix_chance=0.0),
        replace(ALWAYS, mixup_alpha=0.0, cutmix_alpha=0.0),
    ],
)
def test_turned_off_it_changes_nothing(config):
    images, targets = numbered()
    for seed in range(10):
        got = mix(images, targets, config, np.random.default_rng(seed))
        assert got[0] is images
        assert got[1] is targets


@pytest.mark.parametrize("config", [ALWAYS, MIXUP, CUTMIX])
def test_targets_sum_to_one_and_inputs_stay(config):
    images, targets = numbered()
    targets = targets * 0.9 + 0.1 / 6
    before = images.clone(), targets.clone()
    for seed in range(50):
        _, mixed = mix(images, targets, config, np.random.default_rng(seed))
        torch.testing.assert_close(mixed.sum(1), torch.ones(6))
        assert mixed.min() >= 0
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])


def test_mixup_is_one_convex_blend_of_pictures_and_targets():
    torch.manual_seed(0)
    images, targets = torch.randn(6, 3, 10, 14), torch.eye(6)
    shares = []
    for seed in range(150):
        mixed, soft = mix(images, targets, MIXUP, np.random.default_rng(seed))
        # Each picture is what its target says: the same shares of the same pictures.
        torch.testing.assert_close(mixed, torch.einsum("bo,ochw->bchw", soft, images),
                                   atol=1e-5, rtol=1e-5)  # fmt: skip
        assert ((soft > 0).sum(1) <= 2).all()
        shares += soft.diagonal()[soft.diagonal() < 1].unique().tolist()[:1]
    # Beta(0.8, 0.8): mean 1/2, variance 1 / (4 * (2 * 0.8 + 1)).
    assert abs(np.mean(shares) - 0.5) < 0.1
    assert abs(np.var(shares) - 1 / 10.4) < 0.03


@pytest.mark.parametrize("size", [(10, 14), (1, 1), (33, 5), (64, 64)])
def test_cutmix_replaces_exactly_the_share_of_the_label(size):
    images, targets = numbered(6, *size)
    replaced = []
    for seed in range(60):
        mixed, soft = mix(images, targets, CUTMIX, np.random.default_rng(seed))
        for number in range(6):
            values, counts = mixed[number, 0].unique(return_counts=True)
            shares = torch.zeros(6)
            shares[values.long()] = counts / (size[0] * size[1])
            torch.testing.assert_close(soft[number], shares, atol=1e-6, rtol=0)
            assert torch.equal(mixed[number, 0], mixed[number, 2])
            foreign = mixed[number, 0] != number
            rows, columns = foreign.any(1), foreign.any(0)
            assert torch.equal(foreign, rows[:, None] & columns[None, :])
        replaced.append(1 - soft.diagonal().min().item())
    if size == (64, 64):  # Beta(1, 1) is even
        assert abs(np.mean(replaced) - 0.5) < 0.12
        assert min(replaced) < 0.1
        assert max(replaced) > 0.9


def test_every_place_is_cut_sometimes():
    images, targets = numbered(2, 8, 8)
    touched = torch.zeros(8, 8)
    for seed in range(200):
        mixed, _ = mix(images, targets, CUTMIX, np.random.default_rng(seed))
        touched += (mixed[0, 0] != 0).float()
    assert touched.min() > 10
    # Corners are reached as the whole rectangle stays inside; no side is preferred.
    torch.testing.assert_close(touched, touched.flip(0), atol=40, rtol=0)


def test_both_methods_take_equal_turns_at_the_wanted_chance():
    images, targets = numbered()
    config = replace(ALWAYS, mix_chance=0.4)
    kinds = []
    for seed in range(1000):
        mixed, soft = mix(images, targets, config, np.random.default_rng(seed))
        if mixed is images:
            kinds.append("plain")
        elif torch.equal(soft, targets):
            kinds.append("nothing")
        else:
            kinds.append("cutmix" if set(mixed.unique().tolist()) <= set(range(6)) else "mixup")
    assert 0.55 < kinds.count("plain") / 1000 < 0.65
    assert 0.15 < kinds.count("cutmix") / 1000 < 0.25
    assert 0.15 < kinds.count("mixup") / 1000 < 0.25


def test_a_generator_decides_and_one_method_off_leaves_the_draws():
    images, targets = numbered()
    for seed in range(40):
        both = mix(images, targets, ALWAYS, np.random.default_rng(seed))
        again = mix(images, targets, ALWAYS, np.random.default_rng(seed))
        assert torch.equal(both[0], again[0])
        assert torch.equal(both[1], again[1])
        alone = [mix(images, targets, one, np.random.default_rng(seed)) for one in (MIXUP, CUTMIX)]
        assert any(torch.equal(both[0], other[0]) for other in alone)
