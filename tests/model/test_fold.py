"""Folded attention gives the same answers, and is taken where it is cheaper."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitreous.model.config import ModelConfig
from vitreous.model.fold import FoldedAttention, fold, is_cheaper
from vitreous.model.layers import Attention
from vitreous.model.presets import preset
from vitreous.model.vit import ViT

CONFIG = ModelConfig(image_size=(32, 32), patch_size=(8, 8), embed_dim=12, depth=1, num_heads=2)


def drawn(config: ModelConfig, dtype: torch.dtype) -> Attention:
    torch.manual_seed(0)
    attention = Attention(config).to(dtype).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention


@settings(max_examples=60, deadline=None)
@given(
    heads=st.integers(1, 4),
    head_dim=st.integers(1, 20),
    embed=st.integers(1, 24),
    tokens=st.integers(1, 9),
    qkv_bias=st.booleans(),
)
def test_folding_is_exact_for_any_width(heads, head_dim, embed, tokens, qkv_bias):
    config = replace(CONFIG, embed_dim=embed, num_heads=heads, head_dim=head_dim, qkv_bias=qkv_bias)
    attention = drawn(config, torch.float64)
    x = torch.randn(3, tokens, embed, dtype=torch.float64)
    wanted = attention(x)
    assert (FoldedAttention(attention)(x) - wanted).abs().max() < 1e-12 * wanted.abs().max() + 1e-12


def test_every_term_of_the_fold_matters():
    attention = drawn(replace(CONFIG, head_dim=12), torch.float64)
    x = torch.randn(3, 5, 12, dtype=torch.float64)
    for name in ("query.weight", "query.bias", "proj.weight", "proj.bias"):
        folded = FoldedAttention(attention)
        folded.get_parameter(name).zero_()
        assert (folded(x) - attention(x)).abs().max() > 1e-3, name


@pytest.mark.parametrize("name", ["lecture", "lecture-small"])
def test_the_lectures_answers_stay_within_1e_5(name):
    torch.manual_seed(0)
    config = preset(name, image_size=(64, 64), depth=2, embed_dim=192, head_dim=192, mlp_dim=192)
    model = ViT(config).eval()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(pictures)
        answers = fold(model)(pictures)
    assert all(isinstance(block.attn, FoldedAttention) for block in model.blocks)
    assert (answers - wanted).abs().max() / wanted.abs().max() < 1e-5


@pytest.mark.parametrize("head_dim", [4, 6, 8, 12, 24])
@pytest.mark.parametrize("tokens", [4, 16, 64])
def test_cheaper_is_what_the_counter_counts(head_dim, tokens):
    attention = drawn(replace(CONFIG, head_dim=head_dim), torch.float32)
    counts = []
    for layer in (attention, FoldedAttention(attention)):
        # Only the plain attention is made of products that the counter knows.
        plain = sdpa_kernel(SDPBackend.MATH)
        with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
            layer(torch.randn(1, tokens, 12))
        counts.append(counter.get_total_flops())
    assert is_cheaper(attention, tokens) == (counts[1] < counts[0])


def test_usual_heads_and_normed_ones_are_left_alone():
    usual = ViT(CONFIG)
    normed = ViT(replace(CONFIG, head_dim=24, qk_norm=True))
    turned = ViT(replace(CONFIG, head_dim=24, pos_embed="rope2d"))
    for model in (usual, normed, turned):
        assert isinstance(fold(model).blocks[0].attn, Attention)
