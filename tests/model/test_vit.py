from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.errors import ConfigError
from vitreous.model.config import ModelConfig
from vitreous.model.layers import attend
from vitreous.model.patches import PatchEmbed, extract_patches
from vitreous.model.positions import resize_positions, sincos2d
from vitreous.model.presets import PRESETS, preset
from vitreous.model.vit import ViT

SMALL = ModelConfig(
    image_size=(32, 48),
    patch_size=(8, 16),
    num_classes=5,
    embed_dim=24,
    depth=2,
    num_heads=3,
    mlp_dim=40,
)


def randomised(config: ModelConfig, seed: int = 0) -> ViT:
    """A model whose every weight matters: fresh ones have zero biases and tokens."""
    torch.manual_seed(seed)
    model = ViT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


POOLS = ["cls", "mean", "map", "seq", "flatten", "cls+mean", "prefix"]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("registers", [0, 3])
def test_every_pooling_gives_one_row_of_logits_a_picture(pool, registers):
    model = randomised(replace(SMALL, pool=pool, num_register_tokens=registers))
    assert model(torch.randn(3, 3, 32, 48)).shape == (3, 5)
    assert model.forward_tokens(torch.randn(1, 3, 32, 48)).shape == (1, 12 + 1 + registers, 24)


@pytest.mark.parametrize(
    ("stem", "blocks"), [((), ()), ((8, 12, 16), ()), ((8, 12, 16), (1, 0, 2))]
)
def test_a_picture_is_not_influenced_by_its_batch(stem, blocks):
    config = replace(SMALL, patch_size=(8, 8), stem=stem, stem_blocks=blocks)
    model = randomised(config).double()
    images = torch.randn(4, 3, 32, 48, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-12, atol=1e-12)


def shuffled_patches(images: torch.Tensor, order: torch.Tensor, patch: int) -> torch.Tensor:
    patches = F.unfold(images, patch, stride=patch)[:, :, order]
    return F.fold(patches, images.shape[-2:], patch, stride=patch)


def test_without_positions_permuting_patches_permutes_tokens():
    config = replace(SMALL, patch_size=(8, 8), pos_embed="none")
    images, order = torch.randn(2, 3, 32, 48, dtype=torch.float64), torch.randperm(24)
    for pos_embed, equal in (("none", True), ("learned", False), ("sincos2d", False)):
        model = randomised(replace(config, pos_embed=pos_embed)).double()
        tokens = model.forward_tokens(images)[:, 1:]
        moved = model.forward_tokens(shuffled_patches(images, order, 8))[:, 1:]
        assert torch.allclose(tokens[:, order], moved, atol=1e-10) is equal


@pytest.mark.parametrize("pos_embed", ["learned", "sincos2d", "rope2d"])
def test_a_patch_keeps_its_place_among_the_visible(pos_embed):
    model = randomised(
        replace(SMALL, pos_embed=pos_embed, num_register_tokens=1, pre_norm=True)
    ).double()
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    order = torch.stack([torch.randperm(12), torch.randperm(12)])
    tokens = model.forward_tokens(images)
    moved = model.forward_tokens(images, visible=order)
    expected = tokens[:, 2:].gather(1, order[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(moved[:, 2:], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved[:, :2], tokens[:, :2], rtol=1e-9, atol=1e-9)
    other = model.forward_tokens(images, visible=order.flip(0))
    assert not torch.allclose(other[:, 2:], expected)


def test_without_a_head_the_answer_is_what_a_head_would_see():
    model = randomised(SMALL)
    bare = ViT(replace(SMALL, num_classes=0)).eval()
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("head.")}
    bare.load_state_dict(state)
    images = torch.randn(2, 3, 32, 48)
    assert torch.equal(model.head(bare(images)), model(images))


def test_with_identity_a_fresh_block_hands_on_its_tokens():
    images = torch.randn(2, 3, 32, 48)
    for init, equal in (("identity", True), ("xavier", False)):
        model = ViT(replace(SMALL, pos_embed="none", class_token=False, pool="mean", init=init))
        tokens = model.norm(model.patch_embed(images))
        assert torch.allclose(model.forward_tokens(images), tokens) is equal


def test_attention_in_bfloat16_is_that_of_float32():
    q, k, v = torch.randn(3, 2, 4, 37, 16).bfloat16()
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    wrong = F.scaled_dot_product_attention(q.double(), q.double(), v.double())
    assert (attend(q, k, v) - exact).abs().max() < 0.02  # values near 1 have steps of 0.008
    assert (attend(q, k, v) - wrong).abs().max() > 0.2
    torch.testing.assert_close(attend(q.double(), k.double(), v.double()), exact)
    assert not attend(q, k, v, dropout_rate=0.9).equal(attend(q, k, v))


def test_the_projection_is_the_strided_convolution():
    embed = PatchEmbed(SMALL).double()
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    convolved = embed.proj(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(images), convolved, rtol=1e-12, atol=1e-12)


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    patch=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_patches_are_those_of_unfold(rows, columns, patch, channels):
    images = torch.randn(2, channels, rows * patch[0], columns * patch[1])
    expected = F.unfold(images, patch, stride=patch).transpose(1, 2)
    assert torch.equal(extract_patches(images, patch), expected)


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    patch=st.sampled_from([2, 4, 8]),
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([None, 8]),
    pool=st.sampled_from(POOLS),
    pos_embed=st.sampled_from(["learned", "sincos2d", "rope2d", "none"]),
    pre_norm=st.booleans(),
    qk_norm=st.booleans(),
    gated_mlp=st.booleans(),
    fc_norm=st.booleans(),
    layer_scale_init=st.sampled_from([None, 0.1]),
)
@settings(max_examples=40, deadline=None)
def test_any_consistent_configuration_builds_and_learns(height, width, patch, heads, **choices):
    config = ModelConfig(
        image_size=(height * patch, width * patch),
        patch_size=(patch, patch),
        num_classes=4,
        embed_dim=12 * heads,
        depth=1,
        num_heads=heads,
        head_hidden=(7,),
        **choices,
    )
    model = ViT(config)
    loss = model(torch.randn(2, 3, *config.image_size)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_another_picture_size_interpolates_learned_positions(timm):
    from timm.layers import resample_abs_pos_embed

    table = torch.randn(1, 4 * 6, 16)
    ours = resize_positions(table, (4, 6), (7, 5))
    theirs = resample_abs_pos_embed(table, [7, 5], [4, 6], num_prefix_tokens=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    model = randomised(replace(SMALL, pool="mean"))
    assert model(torch.randn(1, 3, 64, 32)).shape == (1, 5)


def test_sincos_table_is_that_of_the_published_formula():
    table = sincos2d((3, 5), 8).double()
    for row in range(3):
        for column in range(5):
            here = table[row * 5 + column]
            x, y = torch.tensor(float(column)), torch.tensor(float(row))
            # two frequencies, 1 and 1/10000
            expected = [x.sin(), (x / 1e4).sin(), x.cos(), (x / 1e4).cos(),
                        y.sin(), (y / 1e4).sin(), y.cos(), (y / 1e4).cos()]  # fmt: skip
            torch.testing.assert_close(here, torch.stack(expected).double(), atol=1e-6, rtol=1e-5)


def test_dropout_of_patches_and_paths_acts_in_training_only():
    config = replace(SMALL, pool="mean", patch_dropout=0.5, drop_path_rate=0.5, dropout=0.1)
    model, images = randomised(config), torch.randn(2, 3, 32, 48)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
    assert model.forward_tokens(images).shape[1] == 1 + 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": (33, 48)}, "height 33 px is not a multiple of the patch size 8"),
        ({"image_size": (4, 48)}, "nearest that fit are 8"),
        ({"embed_dim": 25}, "not a multiple of num_heads"),
        ({"class_token": False}, "class_token"),
        ({"class_token": False, "pool": "cls+mean"}, "class_token"),
        ({"class_token": False, "pool": "prefix"}, "class_token"),
        ({"pos_embed": "rope2d", "num_heads": 4}, "multiple of 4 channels, not 6"),
        ({"pos_embed": "rope2d", "rope_theta": 0.0}, "rope_theta"),
        ({"num_classes": -1}, "num_classes"),
        ({"pool": "flatten", "patch_dropout": 0.5}, "flatten"),
        ({"pos_embed": "sincos2d", "embed_dim": 30}, "multiple of 4"),
        ({"depth": 0}, "model.depth"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"stem": (8, 8)}, "stem"),
        ({"patch_size": (8, 8), "stem": (8, 8, 8), "stem_blocks": (1, 1)}, "stem_blocks"),
    ],
)
def test_contradicting_settings_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(SMALL, **changes)


def test_a_picture_of_a_wrong_size_is_refused_not_cropped():
    with pytest.raises(ConfigError, match="33"):
        ViT(SMALL)(torch.randn(1, 3, 33, 48))
    flat = ViT(replace(SMALL, pool="flatten"))
    with pytest.raises(ConfigError, match="flatten"):
        flat(torch.randn(1, 3, 64, 48))


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'S/16'\?"):
        preset("S/17")
    assert "lecture" in PRESETS


TIMM = {
    "plain": ({}, {}),
    "registers": ({"num_register_tokens": 2, "pool": "mean"}, {"reg_tokens": 2}),
    "layer scale, qk norm, no class token": (
        {
            "layer_scale_init": 0.3,
            "qk_norm": True,
            "class_token": False,
            "pool": "mean",
            "qkv_bias": False,
        },
        {"init_values": 0.3, "qk_norm": True, "class_token": False, "qkv_bias": False},
    ),
    "attention pooling": ({"class_token": False, "pool": "map"}, {"class_token": False}),
}


@pytest.mark.parametrize("name", TIMM)
def test_logits_are_those_of_timm(timm, name):
    ours_changes, theirs_changes = TIMM[name]
    config = replace(SMALL, mlp_dim=96, **ours_changes)
    model = randomised(config)
    oracle = timm.models.VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=5,
        embed_dim=24,
        depth=2,
        num_heads=3,
        mlp_ratio=4.0,
        global_pool={"cls": "token", "mean": "avg", "map": "map"}[config.pool],
        # timm's other default for averaged tokens is a norm behind the pooling
        fc_norm=False,
        **theirs_changes,
    ).eval()
    state = model.state_dict()
    if config.num_register_tokens:
        # timm gives registers a place in the table, the paper and we don't
        cls_position, patches = state["pos_embed"].split([1, 12], dim=1)
        state["pos_embed"] = torch.cat([cls_position, torch.zeros(1, 2, 24), patches], dim=1)
    oracle.load_state_dict(state)
    images = torch.randn(3, 3, 32, 48)
    torch.testing.assert_close(model(images), oracle(images), rtol=1e-4, atol=1e-5)


def test_logits_are_those_of_transformers(transformers):
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        image_size=(32, 48), patch_size=(8, 16), num_labels=5, layer_norm_eps=1e-6,
    )  # fmt: skip
    oracle = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs = oracle.state_dict()
    ours = {}
    for name in ViT(SMALL).state_dict():
        ours[name] = _from_transformers(name, theirs)
    model = ViT(SMALL).eval()
    model.load_state_dict(ours)
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(model(images), oracle(images).logits, rtol=1e-4, atol=1e-5)


def _from_transformers(name: str, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The tensor of theirs that stands for ours, found by the end of its name."""

    def only(*ends: str, layer: str | None = None) -> torch.Tensor:
        found = [
            value
            for key, value in state.items()
            if key.endswith(ends) and (layer is None or f".{layer}." in key)
        ]
        assert len(found) == 1, (name, ends, list(state))
        return found[0]

    kind = name.rpartition(".")[2]
    layer = name.split(".")[1] if name.startswith("blocks.") else None
    if ".qkv." in name:
        parts = [
            only(f"{full}.{kind}", f"{short}.{kind}", layer=layer)
            for full, short in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
        ]
        return torch.cat(parts)
    ends = {
        "cls_token": ("cls_token",),
        "pos_embed": ("position_embeddings",),
        "patch_embed.proj": (f"patch_embeddings.projection.{kind}",),
        "norm1": (f"layernorm_before.{kind}",),
        "norm2": (f"layernorm_after.{kind}",),
        "attn.proj": (f"attention.output.dense.{kind}", f"attention.o_proj.{kind}"),
        "mlp.fc1": (f"intermediate.dense.{kind}", f"mlp.fc1.{kind}"),
        "mlp.fc2": (f"{layer}.output.dense.{kind}", f"mlp.fc2.{kind}"),
        "norm": (f"vit.layernorm.{kind}",),
        "head": (f"classifier.{kind}",),
    }
    ours = name if "." not in name else name.rpartition(".")[0].removeprefix(f"blocks.{layer}.")
    return only(*ends[ours], layer=layer)
