"""What goes out is loaded by the libraries themselves, and answers as the model does."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import vitreous
from tests.model.weights.compare import difference, pictures, shake
from tests.model.weights.test_timm import build as build_timm
from tests.model.weights.test_transformers import FAMILIES
from vitreous.core import files
from vitreous.core.console import Console
from vitreous.data.faces import draw_face
from vitreous.data.preprocess import Preprocess, fit, normalise
from vitreous.errors import ConfigError, RunError, StorageError, VitreousError, WeightsError
from vitreous.exporting import checkpoints
from vitreous.exporting.formats import SEALED
from vitreous.model.config import ModelConfig
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.model.weights import timm_folder
from vitreous.model.weights.checkpoint import read_checkpoint
from vitreous.model.weights.settings import Preprocessing
from vitreous.training.classifier import Classifier, load_classifier, save_classifier

QUIET = Console(quiet=True)
CLASSES = ("angry", "happy", "sad")
PLAIN = ModelConfig(
    image_size=(32, 32), patch_size=(8, 8), num_classes=3, embed_dim=24, depth=2, num_heads=3
)
MEAN = replace(PLAIN, pool="mean")
GATED = replace(PLAIN, gated_mlp=True, activation="silu", mlp_dim=64)
NORM_BEHIND = {"fc_norm": True, "final_norm": False}
TURNED = replace(PLAIN, pos_embed="rope2d", rope_theta=30.0)
VIT, CLIP = "vit_base_patch16_224", "vit_base_patch16_clip_224"
DINOV3, ROPE = "vit_small_patch16_dinov3", "vit_small_patch16_rope_224"
FOR = "ForImageClassification"
#: Models, and what each is in timm and in transformers.
MODELS = {
    "plain": (PLAIN, VIT, f"ViT{FOR}"),
    "rectangle": (replace(PLAIN, image_size=(24, 40), mlp_dim=40), VIT, f"ViT{FOR}"),
    "fixed sines": (replace(PLAIN, pos_embed="sincos2d"), VIT, f"ViT{FOR}"),
    "no positions": (replace(PLAIN, pos_embed="none"), VIT, f"ViT{FOR}"),
    "no bias": (replace(PLAIN, qkv_bias=False), VIT, f"ViT{FOR}"),
    "epsilon of CLIP": (replace(PLAIN, norm_eps=1e-5), CLIP, f"ViT{FOR}"),
    "epsilon of ViT": (replace(PLAIN, norm_eps=1e-12), VIT, f"ViT{FOR}"),
    "epsilon of Keras": (replace(PLAIN, norm_eps=1e-3), None, f"ViT{FOR}"),
    "tanh": (replace(PLAIN, activation="gelu_tanh"), VIT, f"ViT{FOR}"),
    "quick": (replace(PLAIN, activation="quick_gelu"), VIT, f"ViT{FOR}"),
    "two tokens": (replace(PLAIN, num_register_tokens=1), VIT, f"DeiT{FOR}"),
    "two heads": (
        replace(PLAIN, pool="prefix", num_register_tokens=1),
        "deit_tiny_distilled_patch16_224",
        f"DeiT{FOR}WithTeacher",
    ),
    "mean": (MEAN, VIT, f"Dinov2{FOR}"),
    "mean, no class token": (replace(MEAN, class_token=False), VIT, f"Siglip{FOR}"),
    "mean, no bias": (replace(MEAN, class_token=False, qkv_bias=False), VIT, f"Siglip{FOR}"),
    "registers": (replace(PLAIN, num_register_tokens=2), VIT, f"Dinov2WithRegisters{FOR}"),
    "mean, registers": (replace(MEAN, num_register_tokens=2), VIT, f"Dinov2WithRegisters{FOR}"),
    "layer scale": (replace(PLAIN, layer_scale_init=0.1), VIT, f"Dinov2{FOR}"),
    "gated": (GATED, "vit_giant_patch14_dinov2", f"Dinov2{FOR}"),
    "gated by GELU": (replace(GATED, activation="gelu"), "vit_giant_patch14_dinov2", None),
    "both in a row": (replace(PLAIN, pool="cls+mean"), None, f"Dinov2{FOR}"),
    "norm before": (replace(MEAN, pre_norm=True, final_norm=False), VIT, f"CLIP{FOR}"),
    "CLIP": (replace(PLAIN, pre_norm=True, norm_eps=1e-5), CLIP, None),
    "attention": (replace(PLAIN, pool="map", class_token=False), VIT, None),
    "attention and norm": (replace(PLAIN, pool="map", **NORM_BEHIND), VIT, None),
    "norm behind the mean": (replace(MEAN, **NORM_BEHIND), VIT, None),
    "no norm": (replace(PLAIN, final_norm=False), VIT, None),
    "norms of queries": (replace(PLAIN, qk_norm=True), VIT, None),
    "turned": (TURNED, ROPE, None),
    "turned as DINOv3": (
        replace(TURNED, norm_eps=1e-5, num_register_tokens=2, layer_scale_init=0.1, pool="mean"),
        DINOV3,
        None,
    ),
    "turned and gated": (
        replace(TURNED, gated_mlp=True, activation="silu", pool="mean", fc_norm=True),
        ROPE,
        None,
    ),
    "turned, attention": (
        replace(TURNED, pool="map", class_token=False, qk_norm=True),
        ROPE,
        None,
    ),
}
#: What has a place in neither, and the words for it.
NOWHERE = {
    "compact": (
        preset("compact-32", embed_dim=24, stem=(8, 12, 16)),
        "model.stem (8, 12, 16), model.pool 'flatten'",
    ),
    "weighted": (replace(PLAIN, pool="seq"), "model.pool 'seq'"),
    "wide heads": (replace(PLAIN, head_dim=16), "model.head_dim 16"),
    "dense layers": (replace(PLAIN, head_hidden=(8,)), "model.head_hidden (8,)"),
}


@pytest.fixture(autouse=True)
def same_models() -> None:
    torch.manual_seed(0)


def classifier_of(config: ModelConfig, **changes) -> Classifier:
    preprocess = Preprocess(image_size=config.image_size, **changes)
    return Classifier(shake(ViT(config)), preprocess, CLASSES, 1)


def exported(classifier: Classifier, folder: Path, to: str) -> Path:
    save_classifier(folder / "best.safetensors", classifier)
    return vitreous.export(folder / "best.safetensors", folder / "out", to=to, console=QUIET)


def load_timm(timm, folder: Path):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def load_transformers(transformers, folder: Path):
    """Nothing of the file may be left over, and nothing of the model new."""
    auto = transformers.AutoModelForImageClassification
    model, told = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()


def ask(model, images: Tensor) -> Tensor:
    with torch.no_grad():
        return getattr(answer := model(images), "logits", answer)


def probabilities_apart(model: ViT, theirs, images: Tensor) -> float:
    """Largest difference of a probability, where logits are the same too."""
    ours, answer = ask(model, images), ask(theirs, images)
    assert difference(ours, answer) < 1e-4
    return (ours.softmax(1) - answer.softmax(1)).abs().max().item()


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row[1]])
def test_timm_answers_as_the_model_does(timm, tmp_path, name, record_property):
    config, architecture, _ = MODELS[name]
    classifier = classifier_of(config)
    out = exported(classifier, tmp_path, "timm")
    theirs = load_timm(timm, out)
    assert theirs.pretrained_cfg["architecture"] == architecture
    assert tuple(theirs.pretrained_cfg["label_names"]) == CLASSES
    images = pictures(*config.image_size)
    record_property("difference", probabilities_apart(classifier.model, theirs, images))
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row[2]])
def test_transformers_answers_as_the_model_does(transformers, tmp_path, name, record_property):
    config, _, architecture = MODELS[name]
    classifier = classifier_of(config)
    theirs = load_transformers(transformers, exported(classifier, tmp_path, "transformers"))
    assert type(theirs).__name__ == architecture
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    assert theirs.config.label2id == {name: index for index, name in enumerate(CLASSES)}
    images = pictures(*config.image_size)
    record_property("difference", probabilities_apart(classifier.model, theirs, images))


@pytest.mark.parametrize("name", [*MODELS, *NOWHERE])
def test_what_has_no_place_is_said_and_where_it_has_one(tmp_path, name):
    config, *places = MODELS.get(name, (NOWHERE.get(name, ("",))[0], None, None))
    able = [to for to, place in zip(("timm", "transformers"), places, strict=True) if place]
    classifier = classifier_of(config)
    for to in {"timm", "transformers", "keras"} - set(able):
        with pytest.raises(WeightsError) as refused:
            exported(classifier, tmp_path, to)
        others = ", ".join(f"--to {other}" for other in [*SEALED, "web", *able, "safetensors"])
        assert str(refused.value).endswith(f"; these take it: {others}")
        if name in NOWHERE and to != "keras":
            assert f"{to} has no place for {NOWHERE[name][1]}; " in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_what_no_single_model_of_a_library_has_is_said_so(tmp_path):
    both = classifier_of(replace(MEAN, mlp_dim=40))
    with pytest.raises(WeightsError) as refused:
        exported(both, tmp_path, "transformers")
    assert "the nearest lack model.pool 'mean', or model.mlp_dim 40, or" in str(refused.value)
    two_norms = classifier_of(replace(MEAN, fc_norm=True))
    with pytest.raises(WeightsError, match="two norms behind the last block"):
        exported(two_norms, tmp_path, "timm")


def check_changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor], parts: Sequence[str]):
    """All tensors are the same to the bit, but for those whose names have one of these parts."""
    changed = {n for n in before if n not in after or not torch.equal(before[n], after[n])}
    changed |= after.keys() - before.keys()
    assert not {name for name in changed if not any(part in name for part in parts)}
    assert all(any(part in name for name in changed) for part in parts)


#: Models of timm that come back to the bit, and what of the others is said differently.
FROM_TIMM = {
    "vit_base_patch16_224": (),
    "vit_base_patch16_clip_quickgelu_224": (),
    "vit_giant_patch14_dinov2": (),
    "vit_small_patch14_reg4_dinov2": (),
    "vit_medium_patch16_reg4_gap_256": (),
    "vit_base_patch16_siglip_224": (),
    "deit3_small_patch16_224": ("pos_embed",),  # has a row for the class token too, of zeros
    "deit_tiny_distilled_patch16_224": ("pos_embed", "dist_token", "head.bias", "head_dist.bias"),
    "vit_small_patch16_dinov3": (),
    # Keys have a bias too, of zeros, and the two layers before the gate are one.
    "vit_huge_plus_patch16_dinov3_qkvb": ("_bias", "qkv.bias", "mlp.fc1"),
}


@pytest.mark.parametrize("name", FROM_TIMM)
def test_a_model_of_timm_goes_through_and_comes_out(timm, tmp_path, name):
    oracle = build_timm(timm, name, num_classes=3)
    timm.models.save_for_hf(
        oracle, tmp_path / "in", safe_serialization=True, model_config={"label_names": CLASSES}
    )
    out = vitreous.export(tmp_path / "in", tmp_path / "out", to="timm", console=QUIET)
    theirs = load_timm(timm, out)
    images = pictures(*read_checkpoint(out).config.image_size)
    assert difference(ask(oracle, images), ask(theirs, images)) < 1e-4
    check_changed(oracle.state_dict(), theirs.state_dict(), FROM_TIMM[name])


#: The same of transformers.
FROM_TRANSFORMERS = {
    "ViT": (),
    "ViT, no bias": (),
    "ViT, rectangular": (),
    "DeiT": ("position_embeddings", "distillation_token"),  # the second token holds its position
    "DeiT distilled": ("position_embeddings", "distillation_token", "classifier.bias"),
    "DINOv2": ("mask_token",),
    "DINOv2 registers": ("mask_token",),
    "CLIP classifier": ("post_layernorm",),  # its classifier never asks that norm
    "SigLIP classifier": ("vision_model.head",),  # nor that pooling
}


@pytest.mark.parametrize("name", FROM_TRANSFORMERS)
def test_a_model_of_transformers_goes_through_and_comes_out(transformers, tmp_path, name):
    family = FAMILIES[name]
    oracle = family.build(transformers, num_labels=3)
    oracle.save_pretrained(tmp_path / "in")
    out = vitreous.export(
        tmp_path / "in", tmp_path / "out", to="transformers", preprocess="half", console=QUIET
    )
    theirs = load_transformers(transformers, out)
    assert type(theirs) is type(oracle)
    images = pictures(*read_checkpoint(out).config.image_size)
    assert difference(ask(oracle, images), ask(theirs, images)) < 1e-4
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "in", out))
    check_changed(before, after, FROM_TRANSFORMERS[name])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "cover"), [(32, None), (32, 36), (32, 37), (48, 56)])
def test_square_pictures_are_prepared_alike(
    timm, transformers, tmp_path, size, cover, interpolation
):
    """To a grey level, which Pillow and PyTorch round differently."""
    from timm.data import create_transform, resolve_data_config

    settings = Preprocess(
        (size, size), cover and (cover, cover), interpolation, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    )
    classifier = classifier_of(replace(PLAIN, image_size=(size, size)))
    classifier = replace(classifier, preprocess=settings)
    picture = draw_face("happy", 100, np.random.default_rng(0))
    wanted = normalise(torch.from_numpy(fit(picture, settings))[None], settings)[0]
    found = []
    for to in ("timm", "transformers"):
        (tmp_path / to).mkdir()
        folder = exported(classifier, tmp_path / to, to)
        stated = read_checkpoint(folder).preprocessing
        assert stated is not None
        assert replace(stated, mirror=False, resize=None) == Preprocessing(
            (size, size), None, interpolation, settings.mean, settings.std, False
        )
        assert (stated.resize or stated.image_size) == (cover or size,) * 2
        if to == "timm":
            model = load_timm(timm, folder)
            transform = create_transform(**resolve_data_config({}, model=model))
            found.append(transform(Image.fromarray(picture)))
        else:
            processor = transformers.AutoImageProcessor.from_pretrained(folder)
            found.append(processor(Image.fromarray(picture), return_tensors="pt").pixel_values[0])
    for theirs in found:
        assert theirs.shape == wanted.shape
        assert (theirs - wanted).abs().max() < 1.01 / 255 / min(settings.std)
    assert wanted.std() > 0.5


def test_a_crop_is_said_in_timms_share_whatever_its_size():
    """timm rounds side / share down."""
    for size in (8, 32, 48, 224, 384, 518):
        for cover in range(size, 2 * size):
            notes: list[str] = []
            share = timm_folder.crop_share((size, size), (cover, cover), notes)
            assert math.floor(size / share) == cover
            assert 0 < share <= 1
            assert not notes
    assert timm_folder.crop_share((224, 224), (248, 248), []) == 0.9
    assert timm_folder.crop_share((224, 224), (256, 256), []) == 0.875
    assert timm_folder.crop_share((24, 40), (30, 50), []) == 0.8
    share = timm_folder.crop_share((24, 40), (24, 60), notes := [])
    assert math.floor(24 / share) == 24
    assert "pictures cover 24x40 px there, not 24x60" in notes[0]


def test_what_a_library_has_no_word_for_is_said(tmp_path, capsys):
    config = replace(PLAIN, image_size=(24, 40), norm_eps=1e-12)
    save_classifier(tmp_path / "a.safetensors", classifier_of(config, mirror=True))
    for to, words in {
        "timm": ("epsilon 1e-12 of the norms became 1e-06", "pretrained=True"),
        "transformers": ("scales the shorter side of a picture, to 40 px here", "pipeline("),
        "safetensors": ("vitreous predict",),
    }.items():
        out = vitreous.export(tmp_path / "a.safetensors", tmp_path / to, to=to)
        said = capsys.readouterr().err
        assert all(word in said for word in (*words, str(out)))
        assert ("its mirror image" in said) is (to != "safetensors")


def test_one_file_has_everything_in_it(timm, tmp_path):
    classifier = classifier_of(PLAIN, resize=(40, 36), interpolation="bilinear", mirror=True)
    path = exported(classifier, tmp_path, "safetensors")
    assert path.read_bytes() == (tmp_path / "best.safetensors").read_bytes()
    back = load_classifier(path)
    assert (back.preprocess, back.classes) == (classifier.preprocess, CLASSES)
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["vitreous"])
    assert told["classes"] == list(CLASSES)
    assert told["preprocess"]["resize"] == [40, 36]
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=3
    ).eval()
    theirs.load_state_dict(load_file(path))
    assert difference(ask(classifier.model, pictures()), ask(theirs, pictures())) < 1e-5


@pytest.mark.parametrize("to", ["timm", "transformers", "safetensors"])
def test_a_wrong_answer_leaves_nothing_behind(tmp_path, monkeypatch, to):
    save_classifier(tmp_path / "best.safetensors", classifier_of(PLAIN))
    write = checkpoints.write_safetensors

    def wrong(path, tensors, metadata):
        write(path, {**tensors, head: tensors[head] + 0.01}, metadata)

    head = "classifier.bias" if to == "transformers" else "head.bias"
    monkeypatch.setattr(checkpoints, "write_safetensors", wrong)
    monkeypatch.setattr(files, "write_safetensors", wrong)
    with pytest.raises(VitreousError, match="out is not written: read again, it differs by"):
        vitreous.export(tmp_path / "best.safetensors", tmp_path / "out", to=to, console=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize("to", ["timm", "transformers", "safetensors"])
def test_no_number_is_no_answer(tmp_path, to):
    classifier = classifier_of(PLAIN)
    with torch.no_grad():
        classifier.model.head.bias[1] = torch.nan
    with pytest.raises(VitreousError):
        exported(classifier, tmp_path, to)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_what_stands_there_is_left_alone(tmp_path):
    classifier = classifier_of(PLAIN)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"out exists already: choose another --out"):
        exported(classifier, tmp_path, "timm")
    with pytest.raises(ConfigError, match="did you mean 'timm'"):
        exported(classifier, tmp_path, "tim")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't write"):
        vitreous.export(tmp_path / "best.safetensors", tmp_path / "file" / "a", to="timm")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert len(list(tmp_path.iterdir())) == 3


def test_it_goes_beside_what_it_comes_from(tmp_path, monkeypatch):
    run = tmp_path / "faces"
    run.mkdir()
    save_classifier(run / "best.safetensors", classifier_of(PLAIN))
    assert vitreous.export(run, to="timm", console=QUIET) == run / "faces-timm"
    assert vitreous.export(run, to="safetensors", console=QUIET) == run / "faces.safetensors"
    monkeypatch.chdir(tmp_path)
    foreign = run / "faces-timm"
    assert vitreous.export(foreign, to="transformers", console=QUIET) == Path(
        "faces-timm-transformers"
    )
    assert read_checkpoint(tmp_path / "faces-timm-transformers").classes == CLASSES
