"""timm's models, in folders with its config.json and as bare tensors, at any size."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.model.weights.compare import answers, difference, pictures, shake
from vitreous.errors import WeightsError
from vitreous.model.weights import timm as reader
from vitreous.model.weights.checkpoint import read_checkpoint
from vitreous.model.weights.naming import new_name
from vitreous.model.weights.settings import Preprocessing
from vitreous.model.weights.translation import published_heads

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 48, "num_classes": 5}
#: timm's architectures, and settings beside the small ones.
MODELS = {
    "vit_base_patch16_224": {},
    "vit_base_patch16_clip_224": {},
    "vit_base_patch16_clip_quickgelu_224": {},
    "vit_giant_patch14_dinov2": {"img_size": 42},
    "vit_small_patch14_reg4_dinov2": {"img_size": (42, 70)},
    "deit3_small_patch16_224": {"img_size": (48, 80)},
    "deit_tiny_distilled_patch16_224": {},
    "vit_medium_patch16_reg4_gap_256": {},
    "vit_base_patch16_siglip_224": {},
    "vit_so400m_patch16_siglip_256": {},
    "vit_base_patch16_siglip_gap_224": {},
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_dinov3_qkvb": {},
    "vit_huge_plus_patch16_dinov3_qkvb": {},
}


def build(timm, name, **changes):
    settings = {**TINY, **MODELS[name], **changes}
    return shake(timm.create_model(name, **settings))


def ask(oracle, images):
    with torch.no_grad():
        return oracle(images)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_for_the_hub_answers_as_timm(timm, tmp_path, name, record_property):
    oracle = build(timm, name)
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    found = read_checkpoint(tmp_path)
    images = pictures(*found.config.image_size)
    apart = difference(answers(found.model, images), ask(oracle, images))
    record_property("difference", apart)
    assert apart < 1e-4
    with torch.no_grad():
        tokens, theirs = found.model.forward_tokens(images), oracle.forward_features(images)
    assert difference(tokens, theirs) < 1e-4
    assert found.notes == ()


@pytest.mark.parametrize("name", MODELS)
def test_at_another_size_it_answers_as_timm(timm, tmp_path, name):
    oracle = build(timm, name)
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    patch = oracle.patch_embed.patch_size[0]
    size = (5 * patch, 2 * patch)
    if "dinov3" in name:
        state = oracle.state_dict()
        oracle = build(timm, name, img_size=size)
        oracle.load_state_dict(state)
    else:
        oracle.set_input_size(size)
    model = read_checkpoint(tmp_path, image_size=size).model
    images = pictures(*size)
    assert difference(answers(model, images), ask(oracle, images)) < 1e-4
    trained = read_checkpoint(tmp_path).model
    assert torch.allclose(answers(trained, images), answers(model, images), atol=1e-4)


@pytest.mark.parametrize("patch", [8, 24, (12, 32)])
def test_patches_of_another_size_are_those_of_timm(timm, tmp_path, patch):
    oracle = build(timm, "vit_base_patch16_224", img_size=96)
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    pair = patch if isinstance(patch, tuple) else (patch, patch)
    found = read_checkpoint(tmp_path, patch_size=pair)
    oracle.set_input_size((96, 96), patch_size=pair)
    ours = answers(found.model, pictures(96, 96))
    assert difference(ours, ask(oracle, pictures(96, 96))) < 1e-4
    assert found.config.patch_size == pair
    assert "patches resized from 16x16" in " ".join(found.notes)


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_channels_are_folded_as_by_timm(timm, tmp_path, channels):
    from timm.models._manipulate import adapt_input_conv

    oracle = build(timm, "vit_base_patch16_224")
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    found = read_checkpoint(tmp_path, in_channels=channels)
    theirs = adapt_input_conv(channels, oracle.patch_embed.proj.weight.data)
    torch.testing.assert_close(found.model.patch_embed.proj.weight.data, theirs)
    assert f"3 colour channels folded into {channels}" in found.notes


def test_a_grey_picture_is_answered_as_the_same_in_colour(timm, tmp_path):
    save_file(build(timm, "vit_base_patch16_224").state_dict(), tmp_path / "w.safetensors")
    grey = pictures(48, 48, 1)
    for channels in (1, 6):
        model = read_checkpoint(tmp_path / "w.safetensors", num_heads=3, in_channels=channels).model
        ours = answers(model, grey.expand(-1, channels, -1, -1))
        colour = read_checkpoint(tmp_path / "w.safetensors", num_heads=3).model
        assert difference(ours, answers(colour, grey.expand(-1, 3, -1, -1))) < 1e-4


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("vit_base_patch16_224", "64 channels per head assumed: 2 heads"),
        ("deit_tiny_distilled_patch16_224", "64 channels per head assumed"),
        ("vit_base_patch16_clip_224", "quick_gelu"),
        ("vit_small_patch16_dinov3", "turned as in DINOv3 assumed"),
        ("vit_giant_patch14_dinov2", "64 channels per head assumed"),
    ],
)
def test_bare_tensors_say_what_is_assumed(timm, tmp_path, name, note):
    oracle = build(timm, name, embed_dim=128, num_heads=2)
    save_file(oracle.state_dict(), tmp_path / "some.bin")
    found = read_checkpoint(tmp_path / "some.bin")
    images = pictures(*found.config.image_size)
    if "dinov3" in name:
        assert found.config.pool == "cls"  # timm's default is the mean; the file doesn't say
        oracle.global_pool = "token"
        assert found.config.image_size == (224, 224)
    assert difference(answers(found.model, images), ask(oracle, images)) < 1e-4
    assert note in " ".join(found.notes)


def test_published_widths_have_their_published_heads(tmp_path, timm):
    for name, width, heads in (
        ("vit_base_patch16_224", 1152, 16),
        ("vit_base_patch16_siglip_224", 1536, 16),
        ("vit_small_patch14_reg4_dinov2", 1536, 24),
        ("vit_small_patch16_dinov3", 1152, 18),
    ):
        sizes = {"embed_dim": width, "num_heads": heads, "depth": 1}
        oracle = build(timm, name, **sizes, **({"img_size": 42} if "14" in name else {}))
        save_file(oracle.state_dict(), tmp_path / "w.safetensors")
        found = read_checkpoint(tmp_path / "w.safetensors")
        assert found.config.num_heads == heads
        assert f"{heads} heads" in " ".join(found.notes)
    assert read_checkpoint(tmp_path / "w.safetensors", num_heads=24).config.num_heads == 24


ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}


def test_what_no_setting_says_is_that_of_each_architecture(timm):
    """Some architectures are told from this model by their tensors only."""
    others = ("sapiens2", "lingbot", "_xp_", "wee_", "_dlittle_", "_18x2_")
    names = [name for name in timm.list_models(module=["vision_transformer", "eva", "deit"])
             if reader.is_plain(name, {}) and not any(part in name for part in others)]  # fmt: skip
    assert len(names) > 150
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name, depth=1)
        block, width = model.blocks[0], model.embed_dim
        norms = {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)}
        assert norms == {reader.epsilon_of(name)}, name
        state = {new_name(n, reader._RULES): tensor for n, tensor in model.state_dict().items()}
        found = reader._activation(name, {}, state, [])
        assert found == ACTIVATIONS[type(block.mlp.act).__name__], name
        published = published_heads(width, "cls_token" in state, "dinov3" in name)
        heads = reader.heads_of(name) or published or width // 64
        assert heads == block.attn.num_heads, name
        # Bare, but for one that was never published.
        if name != "vit_base_patch16_gap_224":
            assert (published or width // 64) == heads, name


@pytest.mark.parametrize(
    ("name", "heads"),
    [("vit_giantopt_patch16_siglip_256", 16), ("vit_giantopt_patch16_siglip_gap_384", 16),
     ("vit_7b_patch16_dinov3", 32), ("vit_base_patch16_gap_224", 16)],
)  # fmt: skip
def test_a_folder_that_does_not_say_its_heads_has_those_of_its_architecture(
    timm, tmp_path, name, heads
):
    """The hub's config.json says arguments only where the architecture's own are overridden."""
    oracle = shake(timm.create_model(name, embed_dim=128, depth=1, img_size=48, num_classes=5))
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    assert "num_heads" not in (tmp_path / "config.json").read_text()
    found = read_checkpoint(tmp_path)
    assert found.config.num_heads == heads
    assert difference(answers(found.model, pictures(48, 48)), ask(oracle, pictures(48, 48))) < 1e-4
    assert found.notes == ()


def test_preprocessing_and_class_names_come_along(timm, tmp_path):
    oracle = build(timm, "vit_base_patch16_224", num_classes=3)
    timm.models.save_for_hf(
        oracle, tmp_path, safe_serialization=True,
        model_config={"label_names": ["angry", "happy", "sad"]},
        data_config={"input_size": (3, 48, 48), "crop_pct": 0.9, "mean": (0.4, 0.5, 0.6),
                     "std": (0.1, 0.2, 0.3), "interpolation": "bilinear"},
    )  # fmt: skip
    found = read_checkpoint(tmp_path)
    assert found.classes == ("angry", "happy", "sad")
    assert found.preprocessing == Preprocessing(
        (48, 48), (53, 53), "bilinear", (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    )


def test_another_number_of_classes_is_a_new_head_and_none_is_none(timm, tmp_path):
    oracle = build(timm, "vit_base_patch16_224")
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    new = read_checkpoint(tmp_path, num_classes=3)
    assert new.notes == ("head is new: 5 -> 3 classes",)
    assert answers(new.model, pictures(48, 48)).abs().max() == 0.0
    oracle.reset_classifier(0)
    features = answers(read_checkpoint(tmp_path, num_classes=0).model, pictures(48, 48))
    assert difference(features, ask(oracle, pictures(48, 48))) < 1e-4
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    assert read_checkpoint(tmp_path).config.num_classes == 0
    assert read_checkpoint(tmp_path, num_classes=3).notes == ("head is new: 3 classes",)


def test_what_is_read_can_be_trained(timm, tmp_path):
    timm.models.save_for_hf(
        build(timm, "vit_huge_plus_patch16_dinov3_qkvb"), tmp_path, safe_serialization=True
    )
    model = read_checkpoint(tmp_path).model
    model(pictures(48, 48)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "name", ["vit_relpos_small_patch16_224", "vit_small_patch16_rope_224", "beit_base_patch16_224",
             "vit_base_patch16_rpn_224", "eva02_tiny_patch14_224", "vit_pe_core_tiny_patch16_384",
             "vit_small_patch16_rope_ape_224"]
)  # fmt: skip
def test_other_architectures_with_timm_names_are_refused(timm, tmp_path, name):
    settings = {"embed_dim": 24, "depth": 1, "num_heads": 3, "img_size": 56 if "14" in name else 48}
    oracle = timm.create_model(name, **settings)
    timm.models.save_for_hf(oracle, tmp_path, safe_serialization=True)
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path)


def test_an_unknown_activation_is_refused(timm, tmp_path):
    timm.models.save_for_hf(build(timm, "vit_base_patch16_224"), tmp_path, safe_serialization=True)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    settings["model_args"]["act_layer"] = "mish"
    path.write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="mish"):
        read_checkpoint(tmp_path)


def test_pictures_that_patches_do_not_fill_are_seen_but_for_their_rim(timm, tmp_path):
    """As SigLIP's So400m with patches of 14 px sees those of 384."""
    oracle = shake(timm.create_model("vit_so400m_patch14_siglip_384", **TINY))
    timm.models.save_for_hf(
        oracle, tmp_path, safe_serialization=True,
        data_config={"input_size": (3, 48, 48), "crop_pct": 1.0},
    )  # fmt: skip
    found = read_checkpoint(tmp_path)
    assert (found.config.image_size, found.config.grid_size) == ((42, 42), (3, 3))
    assert found.preprocessing is not None
    assert (found.preprocessing.image_size, found.preprocessing.resize) == ((42, 42), (48, 48))
    assert len(found.notes) == 1
    assert "48x48 px are no whole number of patches of 14x14 px: the middle 42x42" in found.notes[0]
    images = pictures(48, 48)
    ours = answers(found.model, images[:, :, :42, :42].contiguous())
    assert difference(ours, ask(oracle, images)) < 1e-4
    larger = read_checkpoint(tmp_path, image_size=(56, 70))
    assert larger.config.grid_size == (4, 5)
    with pytest.raises(WeightsError, match="not a multiple of the patch size 14"):
        read_checkpoint(tmp_path, image_size=(48, 48))


def test_pictures_smaller_than_a_patch_are_refused(timm, tmp_path):
    timm.models.save_for_hf(build(timm, "vit_base_patch16_224"), tmp_path, safe_serialization=True)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    settings["model_args"]["img_size"] = 12
    path.write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="12 px is not a multiple of the patch size 16"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("pool", ["max", "avgmax"])
def test_a_room_for_the_head_that_is_not_known_is_refused(timm, tmp_path, pool):
    oracle = build(timm, "vit_base_patch16_224", global_pool=pool)
    save_file(oracle.state_dict(), tmp_path / "model.safetensors")
    settings = {"architecture": "vit_base_patch16_224", "global_pool": pool}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=f"global_pool is '{pool}'; read are token, avg, map"):
        read_checkpoint(tmp_path, num_heads=3)


def test_a_mean_over_class_and_registers_is_refused(timm, tmp_path):
    oracle = build(timm, "vit_base_patch16_224", global_pool="avg")
    save_file(oracle.state_dict(), tmp_path / "model.safetensors")
    settings = {"architecture": "vit_base_patch16_224", "global_pool": "avg",
                "model_args": {"pool_include_prefix": True}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="pool_include_prefix"):
        read_checkpoint(tmp_path, num_heads=3)
