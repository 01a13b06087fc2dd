"""Tokens are drawn where they look."""

import pytest
import torch

from tests.explanation.builds import BUILDS, SMALL, drawn
from vitreous.explanation.places import places, to_patches
from vitreous.model.presets import preset
from vitreous.model.vit import ViT


def test_a_projected_patch_is_its_tokens_own():
    values = torch.arange(24.0).view(1, 24)
    maps = places(SMALL, (32, 48)).to_pixels(values)
    assert maps.shape == (1, 32, 48)
    assert maps[0, 8, 16] == maps[0, 15, 23] == 8  # second row, third column
    torch.testing.assert_close(to_patches(maps, (8, 8)), values)


@pytest.mark.parametrize("name", ["compact-32", "compact-48", "compact-64", "compact-96"])
def test_behind_a_stem_a_token_lies_in_the_middle_of_what_it_sees(name):
    """Autograd tells which pixels reach a token away from the border; their middle is its place."""
    config = preset(name, embed_dim=12, depth=1, num_heads=1)
    model = ViT(config).eval()
    for module in model.patch_embed.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # a residual block begins silent
    image = torch.ones(1, 3, *config.image_size, requires_grad=True)
    (rows, columns), patch = config.grid_size, config.patch_size[0]
    token = (rows // 2) * columns + columns // 2
    (gradient,) = torch.autograd.grad(model.patch_embed(image)[0, token].square().sum(), image)
    seen = gradient[0].abs().sum(0).sum(1).nonzero()[:, 0]
    middle = (seen[0] + seen[-1]).item() / 2
    values = torch.zeros(1, config.num_patches)
    values[0, token] = 1
    drawn_map = places(config, config.image_size).to_pixels(values)[0]
    hottest = divmod(int(drawn_map.argmax()), config.image_size[1])
    assert hottest == (patch * (rows // 2), patch * (columns // 2))
    assert middle == pytest.approx(hottest[0], abs=0.5)


def test_between_tokens_of_a_stem_a_map_is_linear_and_keeps_an_even_one():
    model = drawn(BUILDS["stem"])
    where = places(model.config, (32, 48))
    torch.testing.assert_close(where.to_pixels(torch.ones(1, 24)), torch.ones(1, 32, 48))
    across = where.to_pixels(torch.arange(6.0).repeat(4)[None])[0, 5]
    torch.testing.assert_close(across[:41], torch.arange(41) / 8)
    torch.testing.assert_close(across[41:], torch.full((7,), 5.0))
