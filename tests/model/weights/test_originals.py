"""What the papers' own code saved: nested, wrapped, with what training needed beside the model."""

import argparse

import pytest
import torch

from tests.model.weights.compare import answers, difference, pictures, shake
from vitreous.errors import WeightsError
from vitreous.model.weights.checkpoint import read_checkpoint

TINY = {"embed_dim": 128, "depth": 2, "num_heads": 2, "img_size": 48, "num_classes": 5}


def build(timm, name="vit_base_patch16_224", **changes):
    return shake(timm.create_model(name, **{**TINY, **changes}))


def check(oracle, path, record_property=None, **options):
    found = read_checkpoint(path, **options)
    images = pictures(*found.config.image_size)
    with torch.no_grad():
        apart = difference(answers(found.model, images), oracle(images))
    if record_property:
        record_property("difference", apart)
    assert apart < 1e-4
    return found


@pytest.mark.parametrize("zipped", [True, False])
def test_dino_keeps_its_teacher(timm, tmp_path, zipped, record_property):
    oracle = build(timm, num_classes=0)
    trained = {f"module.backbone.{n}": t for n, t in oracle.state_dict().items()}
    trained["module.head.mlp.0.weight"] = torch.zeros(7, 128)
    trained["module.head.last_layer.weight_g"] = torch.zeros(9, 1)
    content = {
        "student": {n: torch.zeros_like(t) for n, t in trained.items()},
        "teacher": trained,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "epoch": 12,
        "args": argparse.Namespace(arch="vit_small", lr=5e-4),
        "dino_loss": {"center": torch.zeros(1, 9)},
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = check(oracle, path, record_property)
    notes = " ".join(found.notes)
    assert "left aside in the file: student, optimizer, epoch, args, dino_loss" in notes
    assert "the projection head of pretraining (2 tensors)" in notes
    assert found.config.num_classes == 0


def test_mae_leaves_its_decoder(timm, tmp_path, record_property):
    oracle = build(timm, num_classes=0)
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 10, 8),
               "decoder_embed.weight": torch.zeros(8, 128),
               "decoder_blocks.0.norm1.weight": torch.zeros(8)}  # fmt: skip
    torch.save({"model": {**oracle.state_dict(), **decoder}}, tmp_path / "mae.pth")
    found = check(oracle, tmp_path / "mae.pth", record_property)
    assert "the decoder of pretraining (3 tensors)" in " ".join(found.notes)


def test_mae_fine_tuned_has_its_norm_behind_the_mean(timm, tmp_path):
    oracle = build(timm, global_pool="avg")
    path = tmp_path / "mae_finetuned.pth"
    torch.save({"model": oracle.state_dict(), "epoch": 99}, path)
    found = check(oracle, path)
    assert (found.config.pool, found.config.fc_norm, found.config.final_norm) == (
        "mean", True, False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_deit_is_read_with_both_its_heads(timm, tmp_path, name, record_property):
    oracle = build(timm, name)
    torch.save({"model": oracle.state_dict()}, tmp_path / "deit.pth")
    found = check(oracle, tmp_path / "deit.pth", record_property)
    assert found.config.num_register_tokens == int("distilled" in name)
    renewed = read_checkpoint(tmp_path / "deit.pth", num_classes=3)
    assert answers(renewed.model, pictures(48, 48)).shape == (2, 3)


def test_deit_three_names_its_factors_gamma(timm, tmp_path):
    oracle = build(timm, "deit3_small_patch16_224")
    state = {n.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t
             for n, t in oracle.state_dict().items()}  # fmt: skip
    torch.save({"model": state}, tmp_path / "deit3.pth")
    assert "DeiT III assumed" in " ".join(check(oracle, tmp_path / "deit3.pth").notes)


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", ["small", "giant"])
def test_dinov2_is_what_timm_makes_of_it(timm, tmp_path, registers, size, record_property):
    from timm.models.vision_transformer import checkpoint_filter_fn

    name = f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"
    oracle = build(timm, name, img_size=56, num_classes=0)
    own = {}
    for key, tensor in oracle.state_dict().items():
        if size == "giant":
            key = key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        own[key] = tensor
    own["mask_token"] = torch.zeros(1, 128)
    if registers:
        own["register_tokens"] = own.pop("reg_token")
        own["pos_embed"] = torch.cat([torch.randn(1, 1, 128), own["pos_embed"]], dim=1)
    torch.save(own, tmp_path / "dinov2.pth")
    oracle.load_state_dict(checkpoint_filter_fn(dict(own), oracle))
    found = check(oracle, tmp_path / "dinov2.pth", record_property)
    assert found.format == "DINOv2's own"
    assert found.config.gated_mlp is (size == "giant")


@pytest.mark.parametrize("gated", [False, True])
def test_dinov3_is_what_timm_makes_of_it(timm, tmp_path, gated, record_property):
    from timm.models.eva import checkpoint_filter_fn

    name = f"vit_{'huge_plus' if gated else 'small'}_patch16_dinov3_qkvb"
    oracle = build(timm, name, num_classes=0, global_pool="token", img_size=224)
    own = {"mask_token": torch.zeros(1, 128), "rope_embed.periods": torch.ones(16)}
    renamed = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "reg_token": "storage_tokens",
               "fc1_g": "w1", "fc1_x": "w2"}  # fmt: skip
    if gated:
        renamed["mlp.fc2"] = "mlp.w3"
    for key, tensor in oracle.state_dict().items():
        for theirs, original in renamed.items():
            key = key.replace(theirs, original)
        own[key] = tensor
    for index in range(2):
        attention = f"blocks.{index}.attn."
        parts = [own.pop(f"{attention}q_bias"), torch.randn(128), own.pop(f"{attention}v_bias")]
        own[f"{attention}qkv.bias"] = torch.cat(parts)
        own[f"{attention}qkv.bias_mask"] = torch.ones(384)
    torch.save(own, tmp_path / "dinov3.pth")
    theirs = checkpoint_filter_fn(dict(own), oracle)
    if gated:
        theirs = {n.replace("mlp.w1.", "mlp.fc1_g.").replace("mlp.w2.", "mlp.fc1_x.")
                  .replace("mlp.w3.", "mlp.fc2."): t for n, t in theirs.items()}  # fmt: skip
    oracle.load_state_dict(theirs)
    found = check(oracle, tmp_path / "dinov3.pth", record_property)
    assert found.format == "DINOv3's own"


def test_an_eva_without_settings_is_refused(timm, tmp_path):
    oracle = timm.create_model("eva02_tiny_patch14_224", **{**TINY, "img_size": 56})
    torch.save(oracle.state_dict(), tmp_path / "eva.pth")
    with pytest.raises(WeightsError, match="EVA-02"):
        read_checkpoint(tmp_path / "eva.pth")


@pytest.mark.parametrize(
    "prefix", ["model._orig_mod.", "_orig_mod.module.", "module.model.module.", "teacher.model."]
)
def test_wrappers_are_taken_off_in_any_order(timm, tmp_path, prefix):
    oracle = build(timm)
    state = {f"{prefix}{name}": tensor for name, tensor in oracle.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "wrapped.ckpt")
    check(oracle, tmp_path / "wrapped.ckpt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(timm, tmp_path, dtype):
    oracle = build(timm).to(dtype)
    torch.save({"state_dict": oracle.state_dict()}, tmp_path / "half.pth")
    found = check(oracle.float(), tmp_path / "half.pth")
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}


def test_shared_and_sliced_storages_are_separate_weights(timm, tmp_path):
    oracle = build(timm)
    state = oracle.state_dict()
    both = torch.stack([state["norm.weight"], state["norm.bias"]], dim=1)
    state["norm.weight"], state["norm.bias"] = both[:, 0], both[:, 1]
    state["blocks.0.norm1.weight"] = state["blocks.1.norm1.weight"]
    torch.save(state, tmp_path / "tied.pth")
    oracle.load_state_dict(state)
    model = check(oracle, tmp_path / "tied.pth").model
    with torch.no_grad():
        model.blocks[0].norm1.weight.zero_()
    assert model.blocks[1].norm1.weight.abs().sum() > 0


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_tensors_beside_the_model_are_not_the_model(timm, tmp_path, key):
    oracle = build(timm)
    stray = {name: torch.zeros(3) for name in ("acc", "mean", "std")}
    torch.save({key: oracle.state_dict(), **stray}, tmp_path / "model.pth")
    found = check(oracle, tmp_path / "model.pth")
    assert "left aside in the file: acc, mean, std" in found.notes
    # Settings of that name beside bare tensors are no model.
    torch.save({**oracle.state_dict(), "model": {"depth": 2, "sizes": {}}}, tmp_path / "model.pth")
    assert "left aside in the file: model" in check(oracle, tmp_path / "model.pth").notes


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("alone", [False, True])
def test_averaged_weights_are_taken_as_timm_takes_them(timm, tmp_path, key, alone):
    oracle, path = build(timm), tmp_path / "checkpoint.pth.tar"
    content = {key: oracle.state_dict(), "epoch": 3}
    if not alone:
        content["state_dict" if key == "state_dict_ema" else "model"] = build(timm).state_dict()
        content[key] = {name: 1.1 * tensor for name, tensor in oracle.state_dict().items()}
    torch.save(content, path)
    timm.models.load_checkpoint(oracle, str(path), use_ema=True)
    notes = check(oracle, path).notes
    assert f"averaged weights taken, those of '{key}', as timm does" in notes
    torch.save({**content, key: None, "state_dict": oracle.state_dict()}, path)
    assert "averaged" not in " ".join(check(oracle, path).notes)
