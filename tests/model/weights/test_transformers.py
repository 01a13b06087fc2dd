"""Folders of transformers: every family, as its own library computes it."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.weights.compare import answers, difference, pictures, shake
from vitreous.errors import WeightsError
from vitreous.model.weights.checkpoint import read_checkpoint
from vitreous.model.weights.settings import Preprocessing

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
WIDE = {**SMALL, "intermediate_size": 40}
RECTANGLE = {**WIDE, "image_size": [24, 40]}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "vocab_size": 30,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


@dataclass
class Family:
    """A model of the library, and which of its outputs ours has to give."""

    model: str
    config: str
    settings: dict[str, Any] = field(default_factory=lambda: WIDE)
    answer: str = "logits"
    note: str = ""

    def build(self, transformers, **changes):
        config = getattr(transformers, self.config)(**{**self.settings, **changes})
        return shake(getattr(transformers, self.model)(config))

    def ask(self, oracle, images, **more):
        """The library's answer; of a model with two towers, the one for pictures."""
        tower = oracle if self.answer == "logits" else getattr(oracle, "vision_model", oracle)
        with torch.no_grad():
            given = tower(pixel_values=images, **more)
        return given.last_hidden_state[:, 0] if self.answer == "first" else given[self.answer]


LABELS = {"num_labels": 5}
TWO = {"vision_config": WIDE, "text_config": TEXT}
FAMILIES = {
    "ViT": Family("ViTForImageClassification", "ViTConfig", {**WIDE, **LABELS}),
    "ViT, no bias": Family("ViTForImageClassification", "ViTConfig",
                           {**WIDE, **LABELS, "qkv_bias": False}),
    "ViT, rectangular": Family("ViTForImageClassification", "ViTConfig", {**RECTANGLE, **LABELS}),
    "ViT without head": Family("ViTModel", "ViTConfig", answer="first", note="pooler"),
    "DeiT": Family("DeiTForImageClassification", "DeiTConfig", {**WIDE, **LABELS}),
    "DeiT distilled": Family("DeiTForImageClassificationWithTeacher", "DeiTConfig",
                             {**RECTANGLE, **LABELS}),
    "DINOv2": Family("Dinov2ForImageClassification", "Dinov2Config", {**SMALL, **LABELS},
                     note="mask token"),
    "DINOv2 gated": Family("Dinov2Model", "Dinov2Config", {**SMALL, "use_swiglu_ffn": True},
                           "pooler_output", "mask token"),
    "DINOv2 registers": Family("Dinov2WithRegistersForImageClassification",
                               "Dinov2WithRegistersConfig", {**SMALL, **LABELS}, note="mask"),
    "DINOv3": Family("DINOv3ViTModel", "DINOv3ViTConfig", {**RECTANGLE, "num_register_tokens": 2},
                     "pooler_output", "mask token"),
    "DINOv3 gated": Family("DINOv3ViTModel", "DINOv3ViTConfig",
                           {**WIDE, "use_gated_mlp": True, "hidden_act": "silu",
                            "rope_theta": 30.0}, "pooler_output", "mask token"),
    "CLIP": Family("CLIPModel", "CLIPConfig", TWO, "pooler_output", "text tower"),
    "CLIP tower": Family("CLIPVisionModel", "CLIPVisionConfig", WIDE, "pooler_output"),
    "CLIP projected": Family("CLIPVisionModelWithProjection", "CLIPVisionConfig",
                             {**WIDE, "hidden_act": "gelu"}, "pooler_output", "projections"),
    "CLIP classifier": Family("CLIPForImageClassification", "CLIPConfig", {**TWO, **LABELS},
                              note="doesn't use"),
    "SigLIP": Family("SiglipModel", "SiglipConfig", TWO, "pooler_output", "text tower"),
    "SigLIP tower": Family("SiglipVisionModel", "SiglipVisionConfig", WIDE, "pooler_output"),
    "SigLIP classifier": Family("SiglipForImageClassification", "SiglipConfig", {**TWO, **LABELS},
                                note="doesn't use"),
    "ViTMAE": Family("ViTMAEModel", "ViTMAEConfig", {**WIDE, "mask_ratio": 0.0}, "first"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_answers_as_its_library(transformers, tmp_path, name, record_property):
    family = FAMILIES[name]
    oracle = family.build(transformers)
    oracle.save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    assert found.format.startswith("transformers")
    assert (found.config.num_classes == 5) is (family.answer == "logits")
    images = pictures(*found.config.image_size)
    apart = difference(answers(found.model, images), family.ask(oracle, images))
    record_property("difference", apart)
    assert apart < 1e-4
    assert family.note in " ".join(found.notes)
    assert bool(found.notes) is bool(family.note)


@pytest.mark.parametrize(
    "name", ["ViT", "DeiT distilled", "DINOv2", "DINOv2 registers", "CLIP", "SigLIP", "ViTMAE"]
)
def test_at_another_size_positions_are_those_of_timm(transformers, timm, tmp_path, name):
    from timm.layers import resample_abs_pos_embed

    family = FAMILIES[name]
    size = (40, 40)
    oracle = family.build(transformers)
    oracle.save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path, image_size=size)
    trained = read_checkpoint(tmp_path).config
    table = _table(oracle)
    before = table.shape[-2] - trained.num_patches
    resized = resample_abs_pos_embed(
        table.data.reshape(1, -1, 24), [5, 5], list(trained.grid_size), num_prefix_tokens=before
    )
    bigger = family.build(transformers, **_sized(family, 40))
    state = oracle.state_dict()
    bigger.load_state_dict(
        {n: resized.view_as(_table(bigger)) if t.data_ptr() == table.data_ptr() else t
         for n, t in state.items() if "position_ids" not in n}, strict=False,
    )  # fmt: skip
    images = pictures(*size)
    assert difference(answers(found.model, images), family.ask(bigger, images)) < 1e-4
    assert "positions interpolated" in " ".join(found.notes)
    unsized = read_checkpoint(tmp_path).model
    assert torch.allclose(answers(unsized, images), answers(found.model, images), atol=1e-5)


def _table(model):
    return next(
        p for n, p in model.named_parameters()
        if "position_embedding" in n and "text_model" not in n and "decoder" not in n
    )  # fmt: skip


def _sized(family, side):
    if "vision_config" in family.settings:
        return {"vision_config": {**family.settings["vision_config"], "image_size": side}}
    return {"image_size": side}


def test_turned_queries_fit_any_size(transformers, tmp_path):
    family = FAMILIES["DINOv3"]
    oracle = family.build(transformers)
    oracle.save_pretrained(tmp_path)
    model = read_checkpoint(tmp_path).model
    images = pictures(56, 72)
    assert difference(answers(model, images), family.ask(oracle, images)) < 1e-4


def test_a_pretraining_encoder_leaves_its_decoder(transformers, tmp_path):
    settings = {f"decoder_{name}": 12 for name in ("hidden_size", "intermediate_size")}
    settings |= {"decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    config = transformers.ViTMAEConfig(**WIDE, **settings, mask_ratio=0.0)
    oracle = shake(transformers.ViTMAEForPreTraining(config))
    oracle.save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    theirs = FAMILIES["ViTMAE"].ask(oracle.vit, pictures())
    assert difference(answers(found.model, pictures()), theirs) < 1e-4
    assert "the decoder of pretraining" in " ".join(found.notes)


def test_a_model_in_several_files_is_one(transformers, tmp_path):
    family = FAMILIES["ViT"]
    oracle = family.build(transformers)
    oracle.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours = answers(read_checkpoint(tmp_path).model, pictures())
    assert difference(ours, family.ask(oracle, pictures())) < 1e-4
    index = tmp_path / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    places["weight_map"]["classifier.bias"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(places))
    with pytest.raises(WeightsError, match="elsewhere"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["ViT", "DINOv2 gated", "DINOv3", "CLIP tower"])
def test_a_bare_state_dict_says_what_is_assumed(transformers, tmp_path, name):
    family = FAMILIES[name]
    oracle = family.build(transformers, num_attention_heads=6)
    torch.save(oracle.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="num_heads"):
        read_checkpoint(tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth", num_heads=6)
    assert "no config.json beside it" in " ".join(found.notes)
    ours = answers(found.model, pictures())
    assert difference(ours, family.ask(oracle, pictures())) < 1e-4


def test_class_names_and_preprocessing_come_along(transformers, tmp_path):
    names = {0: "angry", 1: "happy", 2: "sad"}
    config = transformers.ViTConfig(**WIDE, id2label=names, label2id={})
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size=32)
    processor.save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    assert found.classes == ("angry", "happy", "sad")
    assert found.preprocessing == Preprocessing(
        image_size=(32, 32),
        resize=(36, 36),
        interpolation="bicubic",
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )
    # A model with two towers keeps the same settings beside its tokenizer's.
    (tmp_path / "preprocessor_config.json").unlink()
    both = {"image_processor": processor.to_dict(), "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(both))
    assert read_checkpoint(tmp_path).preprocessing == found.preprocessing
    renewed = read_checkpoint(tmp_path, num_classes=7)
    assert renewed.classes is None
    assert renewed.config.num_classes == 7
    assert "head is new: 3 -> 7 classes" in renewed.notes


def test_a_squeezed_picture_is_noted(transformers, tmp_path):
    FAMILIES["ViT"].build(transformers).save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    assert found.preprocessing is not None
    assert found.preprocessing.image_size == (32, 32)
    assert found.preprocessing.resize is None
    assert found.preprocessing.interpolation == "bilinear"
    assert "squeezed" in " ".join(found.notes)
    assert found.classes is None  # LABEL_0 and so on are no names


def settings_of(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu_10"}, "gelu_10"),
        ({"num_attention_heads": "3"}, "num_attention_heads"),
        ({"num_attention_heads": 5}, "divisible"),
        ({"layer_norm_eps": math.inf}, "layer_norm_eps"),
        ({"image_size": 48}, "17 positions, which don't fit 6x6"),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused(transformers, tmp_path, changes, words):
    FAMILIES["ViT"].build(transformers).save_pretrained(tmp_path)
    settings_of(tmp_path, **changes)
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path)


def test_positions_that_would_fill_the_memory_are_not_computed(transformers, tmp_path):
    FAMILIES["DINOv3"].build(transformers).save_pretrained(tmp_path)
    settings_of(tmp_path, image_size=60_000)
    with pytest.raises(WeightsError, match=r"60000x60000 px are 56,250,000 patches.* fill the mem"):
        read_checkpoint(tmp_path)


def test_left_over_missing_and_wrong_tensors_are_listed(transformers, tmp_path):
    FAMILIES["ViT"].build(transformers).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    layer = "vit.encoder.layer.1.attention.output.dense"
    changed = {name: t for name, t in tensors.items() if name != f"{layer}.bias"}
    save_file({**changed, **{f"extra.{i}": torch.zeros(2, 3) for i in range(11)}}, file)
    with pytest.raises(WeightsError) as refused:
        read_checkpoint(tmp_path)
    assert "missing: 1 (blocks.1.attn.proj.bias)" in str(refused.value)
    assert "left over: 11 (extra.0 2x3" in str(refused.value)
    assert "and 3 more" in str(refused.value)
    save_file({**tensors, f"{layer}.weight": torch.zeros(24, 23)}, file)
    with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.proj\.weight 24x23 instead of 24x24"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["ViT", "DINOv2", "DINOv3", "CLIP tower", "SigLIP classifier"])
@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod."])
def test_a_wrapper_around_the_library_is_taken_off(transformers, tmp_path, name, prefix):
    """As Lightning saves it, whose modules call theirs a model."""
    family = FAMILIES[name]
    oracle = family.build(transformers)
    oracle.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({f"{prefix}{n}": tensor for n, tensor in load_file(file).items()}, file)
    found = read_checkpoint(tmp_path)
    images = pictures(*found.config.image_size)
    assert difference(answers(found.model, images), family.ask(oracle, images)) < 1e-4


@pytest.mark.parametrize("name", ["SigLIP tower", "CLIP", "DINOv3"])
def test_pictures_that_patches_do_not_fill_are_seen_but_for_their_rim(transformers, tmp_path, name):
    """As SigLIP's So400m with patches of 14 px sees those of 384."""
    family = FAMILIES[name]
    oracle = family.build(transformers, **_sized(family, 37))
    oracle.save_pretrained(tmp_path)
    size = {"height": 37, "width": 37}
    transformers.SiglipImageProcessorPil(size=size).save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    assert (found.config.image_size, found.config.grid_size) == ((32, 32), (4, 4))
    assert found.preprocessing is not None
    assert (found.preprocessing.image_size, found.preprocessing.resize) == ((32, 32), (37, 37))
    assert sum("the middle 32x32 px" in note for note in found.notes) == 1
    images = pictures(37, 37)
    ours = answers(found.model, images[:, :, :32, :32].contiguous())
    assert difference(ours, family.ask(oracle, images)) < 1e-4


@pytest.mark.parametrize(
    ("size", "squeezed"),
    [({"height": 36, "width": 36}, True), ({"shortest_edge": 36}, False), (36, False)],
)
def test_a_squeezed_picture_is_noted_behind_a_crop_too(transformers, tmp_path, size, squeezed):
    """As DeiT's; of a plain number it isn't known which it is."""
    FAMILIES["ViT"].build(transformers).save_pretrained(tmp_path)
    told = {"size": size, "do_center_crop": True, "crop_size": 32, "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    found = read_checkpoint(tmp_path)
    assert ("squeezed" in " ".join(found.notes)) is squeezed
    assert found.preprocessing
    assert (found.preprocessing.image_size, found.preprocessing.resize) == ((32, 32), (36, 36))


@pytest.mark.parametrize(
    ("factor", "known"), [(1 / 255, True), (0.00392156862745098, True), (1, False)]
)
def test_mean_and_std_on_another_scale_are_not_taken(transformers, tmp_path, factor, known):
    FAMILIES["ViT"].build(transformers).save_pretrained(tmp_path)
    told = {"size": {"height": 32, "width": 32}, "image_mean": [123.0] * 3,
            "image_std": [58.0] * 3, "rescale_factor": factor}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    found = read_checkpoint(tmp_path).preprocessing
    assert found
    assert (found.mean is not None) is known
