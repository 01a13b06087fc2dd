"""torchvision's state dicts, and Google's arrays as timm reads them."""

import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.model.weights.compare import answers, difference, pictures, shake
from vitreous.errors import WeightsError
from vitreous.model.weights.checkpoint import read_checkpoint

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


@pytest.mark.parametrize("heads", [1, 2])
def test_torchvision_answers_as_torchvision(timm, tmp_path, heads, record_property):
    # the fixture timm makes torchvision importable
    from torchvision.models import VisionTransformer

    oracle = shake(VisionTransformer(32, 8, 2, heads, 128, 40, num_classes=5))
    torch.save(oracle.state_dict(), tmp_path / "vit.pth")
    found = read_checkpoint(tmp_path / "vit.pth", num_heads=heads)
    with torch.no_grad():
        apart = difference(answers(found.model, pictures()), oracle(pictures()))
    record_property("difference", apart)
    assert apart < 1e-4
    assert found.format == "torchvision"
    assert (read_checkpoint(tmp_path / "vit.pth").config.num_heads == heads) is (heads == 2)


def test_torchvision_at_another_size_has_positions_of_timm(timm, tmp_path):
    from timm.layers import resample_abs_pos_embed
    from torchvision.models import VisionTransformer

    oracle = shake(VisionTransformer(32, 8, 2, 2, 128, 40, num_classes=5))
    torch.save(oracle.state_dict(), tmp_path / "vit.pth")
    bigger = VisionTransformer(56, 8, 2, 2, 128, 40, num_classes=5).eval()
    table = oracle.encoder.pos_embedding.data
    resized = resample_abs_pos_embed(table, [7, 7], [4, 4], num_prefix_tokens=1)
    bigger.load_state_dict({**oracle.state_dict(), "encoder.pos_embedding": resized})
    model = read_checkpoint(tmp_path / "vit.pth", image_size=(56, 56)).model
    with torch.no_grad():
        assert difference(answers(model, pictures(56, 56)), bigger(pictures(56, 56))) < 1e-4


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_head_behind_a_tanh_layer_is_left_out_there_too(timm, tmp_path, library):
    from torchvision.models import VisionTransformer

    if library == "torchvision":
        oracle = shake(VisionTransformer(32, 8, 2, 2, 128, 40, representation_size=9))
        state = oracle.state_dict()
        oracle.heads = nn.Identity()
    else:
        oracle = shake(timm.models.VisionTransformer(32, 8, embed_dim=128, depth=1, num_heads=2))
        state = {**oracle.state_dict(), "pre_logits.fc.weight": torch.zeros(128, 128)}
        oracle.reset_classifier(0)
    torch.save(state, tmp_path / "vit.pth")
    found = read_checkpoint(tmp_path / "vit.pth")
    with torch.no_grad():
        assert difference(answers(found.model, pictures()), oracle(pictures())) < 1e-4
    assert "a head behind a tanh layer" in " ".join(found.notes)


def test_torchvision_with_a_stem_of_its_own_is_refused(timm, tmp_path):
    from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

    stem = [ConvStemConfig(8, 3, 2), ConvStemConfig(8, 3, 2), ConvStemConfig(8, 3, 2)]
    oracle = VisionTransformer(32, 8, 1, 2, 128, 40, conv_stem_configs=stem)
    torch.save(oracle.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "vit.pth")


def to_google(
    state: dict[str, torch.Tensor], heads: int, big_vision: bool
) -> dict[str, np.ndarray]:
    """timm's tensors in Flax's layout, named as the AugReg files or as big_vision's."""
    arrays = {}

    def put(name, tensor):
        arrays[name] = tensor.contiguous().numpy()

    def dense(name, layer):
        put(f"{name}/kernel", state[f"{layer}.weight"].T)
        put(f"{name}/bias", state[f"{layer}.bias"])

    def norm(name, layer):
        put(f"{name}/scale", state[f"{layer}.weight"])
        put(f"{name}/bias", state[f"{layer}.bias"])

    def attention(name, parts, out):
        for part, (weight, bias) in parts.items():
            put(f"{name}/{part}/kernel", weight.T.reshape(weight.shape[1], heads, -1))
            put(f"{name}/{part}/bias", bias.reshape(heads, -1))
        weight = state[f"{out}.weight"]
        put(f"{name}/out/kernel", weight.T.reshape(heads, -1, weight.shape[0]))
        put(f"{name}/out/bias", state[f"{out}.bias"])

    put("embedding/kernel", state["patch_embed.proj.weight"].permute(2, 3, 1, 0))
    put("embedding/bias", state["patch_embed.proj.bias"])
    table = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    put(table, state["pos_embed"])
    if "cls_token" in state:
        put("cls", state["cls_token"])
    norm("Transformer/encoder_norm", "norm")
    if "head.weight" in state:
        dense("head", "head")
    mha, second, mlp = (0, 1, 0) if big_vision else (1, 2, 3)
    for index in range(2):
        theirs, ours = f"Transformer/encoderblock_{index}", f"blocks.{index}"
        norm(f"{theirs}/LayerNorm_0", f"{ours}.norm1")
        norm(f"{theirs}/LayerNorm_{second}", f"{ours}.norm2")
        weights = state[f"{ours}.attn.qkv.weight"].chunk(3)
        parts = zip(weights, state[f"{ours}.attn.qkv.bias"].chunk(3), strict=True)
        named = dict(zip(("query", "key", "value"), parts, strict=True))
        attention(f"{theirs}/MultiHeadDotProductAttention_{mha}", named, f"{ours}.attn.proj")
        dense(f"{theirs}/MlpBlock_{mlp}/Dense_0", f"{ours}.mlp.fc1")
        dense(f"{theirs}/MlpBlock_{mlp}/Dense_1", f"{ours}.mlp.fc2")
    if "attn_pool.latent" in state:
        put("MAPHead_0/probe", state["attn_pool.latent"])
        norm("MAPHead_0/LayerNorm_0", "attn_pool.norm")
        named = {"query": (state["attn_pool.q.weight"], state["attn_pool.q.bias"])}
        weights = state["attn_pool.kv.weight"].chunk(2)
        parts = zip(weights, state["attn_pool.kv.bias"].chunk(2), strict=True)
        named |= dict(zip(("key", "value"), parts, strict=True))
        attention("MAPHead_0/MultiHeadDotProductAttention_0", named, "attn_pool.proj")
        dense("MAPHead_0/MlpBlock_0/Dense_0", "attn_pool.mlp.fc1")
        dense("MAPHead_0/MlpBlock_0/Dense_1", "attn_pool.mlp.fc2")
    return arrays


def stacked(arrays):
    """As big_vision's scanned models: all blocks in one array."""
    first = "Transformer/encoderblock_0/"
    together = {n: a for n, a in arrays.items() if "encoderblock_" not in n}
    for name in [name for name in arrays if name.startswith(first)]:
        parts = [arrays[name.replace("_0/", f"_{index}/", 1)] for index in range(2)]
        together[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(parts)
    return together


GOOGLE = {
    "AugReg": ({}, "", False, False),
    "AugReg, with its optimiser": ({}, "opt/target/", False, False),
    "big_vision, class token": ({"no_embed_class": True}, "params/", True, False),
    "big_vision, mean": (
        {"class_token": False, "global_pool": "avg", "fc_norm": False}, "params/", True, True,
    ),
    "SigLIP": ({"class_token": False, "global_pool": "map", "num_classes": 0}, "params/img/", True,
               True),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOGLE)
def test_google_arrays_answer_as_timm_reads_them(timm, tmp_path, name, record_property):
    settings, prefix, big_vision, scanned = GOOGLE[name]
    build = functools.partial(
        timm.models.VisionTransformer, img_size=32, patch_size=8,
        act_layer=functools.partial(nn.GELU, approximate="tanh"), **{**TINY, **settings},
    )  # fmt: skip
    arrays = to_google(shake(build()).state_dict(), 3, big_vision)
    arrays = stacked(arrays) if scanned else arrays
    named = {f"{prefix}{name}": array for name, array in arrays.items()}
    if prefix == "params/img/":
        named |= {"params/txt/head/bias": np.zeros(3, np.float32), "params/t": np.zeros(1)}
    np.savez(tmp_path / "vit.npz", **named)
    oracle = build().eval()
    oracle.load_pretrained(str(tmp_path / "vit.npz"))
    found = read_checkpoint(tmp_path / "vit.npz")
    with torch.no_grad():
        apart = difference(answers(found.model, pictures()), oracle(pictures()))
    record_property("difference", apart)
    assert apart < 1e-4
    assert found.config.num_heads == 3
    assert "GELU in its tanh form, as Flax computes it" in found.notes
    assert ("the text tower" in " ".join(found.notes)) is (prefix == "params/img/")


def test_google_bfloat16_arrays_are_read(timm, tmp_path):
    oracle = shake(timm.models.VisionTransformer(img_size=32, patch_size=8, **TINY))
    arrays = to_google(oracle.state_dict(), 3, big_vision=False)
    short = {
        name: torch.from_numpy(array).bfloat16().view(torch.int16).numpy().view("V2")
        for name, array in arrays.items()
    }
    np.savez(tmp_path / "vit.npz", **short)
    np.savez_compressed(tmp_path / "full.npz", **arrays)
    ours = read_checkpoint(tmp_path / "vit.npz").model.head.weight
    full = read_checkpoint(tmp_path / "full.npz").model.head.weight
    assert torch.equal(ours, full.bfloat16().float())


def test_a_head_behind_a_tanh_layer_is_left_out(timm, tmp_path):
    oracle = shake(timm.models.VisionTransformer(img_size=32, patch_size=8, **TINY))
    arrays = to_google(oracle.state_dict(), 3, big_vision=False)
    layer = {"pre_logits/kernel": np.zeros((24, 24)), "pre_logits/bias": np.zeros(24)}
    np.savez(tmp_path / "vit.npz", **arrays, **layer)
    found = read_checkpoint(tmp_path / "vit.npz")
    assert found.config.num_classes == 0
    assert "left out: a head behind a tanh layer (4 tensors)" in found.notes


def test_the_real_vit_reproduces_its_reference(shared):
    weights = shared / "weights" / "vit_tiny_patch16_224_augreg_in21k_ft_in1k.safetensors"
    reference = json.loads((shared / "weights" / "reference_outputs.json").read_text())[
        weights.stem
    ]
    place = torch.arange(3 * 224 * 224, dtype=torch.float64).view(1, 3, 224, 224)
    model = read_checkpoint(weights).model
    with torch.no_grad():
        logits = model(torch.sin(0.01 * place).float())[0]
    assert (logits[:8] - torch.tensor(reference["logits_first8"])).abs().max() < 1e-3
    assert logits.argmax() == reference["logits_argmax"]
    assert abs(logits.max().item() - reference["logits_max"]) < 1e-3
    assert abs(logits.sum().item() - reference["logits_sum"]) < 1e-2


def test_the_image_tower_of_two_has_a_projection_and_no_classes(timm, tmp_path):
    oracle = shake(timm.models.VisionTransformer(img_size=32, patch_size=8, **TINY))
    arrays = to_google(oracle.state_dict(), 3, big_vision=True)
    np.savez(
        tmp_path / "lit.npz", **{f"params/img/{name}": array for name, array in arrays.items()}
    )
    found = read_checkpoint(tmp_path / "lit.npz")
    assert found.config.num_classes == 0
    assert "the projection to where pictures and texts are compared" in " ".join(found.notes)
