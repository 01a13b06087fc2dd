from dataclasses import replace

import pytest
import torch

from tests.model.weights.compare import shake
from vitreous.core.files import read_tensors, write_tensors
from vitreous.errors import ConfigError, RunError, WeightsError
from vitreous.model.vit import ViT
from vitreous.training.classifier import Classifier, load_classifier, save_classifier
from vitreous.training.encoder import (
    Encoder,
    load_encoder,
    save_encoder,
    without_head,
    without_pooling,
)
from vitreous.training.learner import ClassLearner

CLASSES = ("angry", "happy", "sad")


@pytest.fixture
def encoder(config) -> Encoder:
    """Pretrained, so without its pooling; of another seed, with statistics as after some steps."""
    torch.manual_seed(99)
    model = ViT(config.model)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 32))
    tensors = without_pooling(without_head(model.state_dict()))
    return Encoder(config.model, config.preprocess, tensors)


def test_a_file_brings_everything_back(encoder, tmp_path):
    save_encoder(tmp_path / "a", encoder)
    back = load_encoder(tmp_path / "a")
    assert (back.config, back.preprocess) == (encoder.config, encoder.preprocess)
    assert back.tensors.keys() == encoder.tensors.keys()
    assert all(torch.equal(back.tensors[name], value) for name, value in encoder.tensors.items())
    save_encoder(tmp_path / "b", back)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_learner_begins_with_its_tokens_and_nothing_else_changes(config, faces, encoder):
    with_it = ClassLearner(config, faces, CLASSES, encoder)
    without = ClassLearner(config, faces, CLASSES)
    images = torch.randn(2, 3, 32, 32)
    theirs = ViT(config.model).eval()
    theirs.load_state_dict({**theirs.state_dict(), **encoder.tensors})
    for model in (with_it.state.model.eval(), with_it.state.ema.model):
        assert torch.equal(model.forward_tokens(images), theirs.forward_tokens(images))
    tokens = without.state.model.eval().forward_tokens(images)
    assert not torch.allclose(tokens, theirs.forward_tokens(images), atol=0.1)
    mine, drawn = with_it.state.model.state_dict(), without.state.model.state_dict()
    for name in mine.keys() - encoder.tensors.keys():
        assert torch.equal(mine[name], drawn[name])
    assert mine.keys() - encoder.tensors.keys() == {
        "attn_pool.score.weight", "attn_pool.score.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert all(map(torch.equal, with_it.batch(3), without.batch(3)))


def test_a_trained_model_gives_its_encoder_but_not_its_head(config, tmp_path):
    model = ViT(replace(config.model, pool="map", head_hidden=(8,)))
    classifier = Classifier(model, config.preprocess, CLASSES, 0)
    save_classifier(tmp_path / "trained", classifier)
    encoder = load_encoder(tmp_path / "trained")
    assert not any(name.startswith("head") for name in encoder.tensors)
    other = replace(config.model, pool="flatten", num_classes=7, drop_path_rate=0.0, dropout=0.0,
                    attention_dropout=0.0, patch_dropout=0.0, init="keras2")  # fmt: skip
    begun = encoder.load_into(ViT(other))
    assert torch.equal(begun.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight)


@pytest.mark.parametrize("pool", ["map", "seq"])
def test_a_pooling_that_was_trained_is_kept_with_the_norm_behind_it(config, faces, tmp_path, pool):
    trained = shake(ViT(replace(config.model, pool=pool, fc_norm=True, head_hidden=(8,))))
    save_classifier(tmp_path / "trained", Classifier(trained, config.preprocess, CLASSES, 0))
    encoder = load_encoder(tmp_path / "trained")
    begun = replace(config, model=replace(trained.config, num_classes=7))
    learner = ClassLearner(begun, faces, tuple("abcdefg"), encoder)
    images = torch.randn(2, 3, 32, 32)
    for model in (learner.state.model.eval(), learner.state.ema.model):
        with torch.no_grad():
            wanted = trained.pool(trained.forward_tokens(images))
            found = model.pool(model.forward_tokens(images))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        assert not torch.equal(model.head_mlp[0].weight, trained.head_mlp[0].weight)
    for other in (replace(begun.model, pool="mean"), replace(begun.model, fc_norm=False)):
        model = ViT(other)
        drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        encoder.load_into(model)
        assert not torch.equal(drawn["norm.weight"], model.norm.weight)
        if other.pool == "mean":
            assert torch.equal(drawn["fc_norm.weight"], model.fc_norm.weight)


def test_half_a_pooling_is_damage(config, tmp_path):
    model = ViT(replace(config.model, pool="map"))
    tensors = without_head(model.state_dict())
    del tensors["attn_pool.latent"]
    save_encoder(tmp_path / "half", Encoder(model.config, config.preprocess, tensors))
    with pytest.raises(WeightsError, match=r"missing: 1 \(attn_pool\.latent\)"):
        load_encoder(tmp_path / "half")


def test_another_model_is_refused_with_what_differs(config, encoder):
    other = replace(config.model, depth=3, num_heads=4, num_classes=9)
    with pytest.raises(ConfigError) as caught:
        encoder.load_into(ViT(other))
    assert "has model.depth 2, not 3; model.num_heads 2, not 4: leave" in str(caught.value)


def test_tensors_that_are_not_the_models_are_listed(encoder, tmp_path):
    tensors = dict(encoder.tensors)
    del tensors["blocks.0.attn.qkv.weight"]
    tensors["blocks.7.norm1.bias"] = torch.zeros(32)
    tensors["norm.weight"] = torch.zeros(5)
    save_encoder(tmp_path / "odd", replace(encoder, tensors=tensors))
    with pytest.raises(WeightsError) as caught:
        load_encoder(tmp_path / "odd")
    assert str(caught.value).endswith(
        "missing: 1 (blocks.0.attn.qkv.weight); left over: 1 (blocks.7.norm1.bias 32); "
        "of another shape: 1 (norm.weight 5 instead of 32)"
    )
    save_encoder(tmp_path / "empty", replace(encoder, tensors={"x": torch.zeros(1)}))
    with pytest.raises(WeightsError, match=r"missing: .* and \d+ more\); left over: 1 \(x 1\)"):
        load_encoder(tmp_path / "empty")


def test_files_of_another_kind(encoder, tmp_path):
    save_encoder(tmp_path / "pre", encoder)
    with pytest.raises(RunError, match=r"knows no classes yet: .*vitreous train FOLDER --init"):
        load_classifier(tmp_path / "pre")
    with pytest.raises(RunError, match="no weights at"):
        load_encoder(tmp_path / "gone")
    tensors, metadata = read_tensors(tmp_path / "pre")
    write_tensors(tmp_path / "old", tensors, {**metadata, "model": {"width": 3}})
    with pytest.raises(RunError, match="damaged or from another version"):
        load_encoder(tmp_path / "old")


def test_reading_leaves_the_callers_random_numbers_alone(encoder, tmp_path):
    save_encoder(tmp_path / "pre", encoder)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_encoder(tmp_path / "pre")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(encoder, tmp_path, number):
    encoder.tensors["blocks.1.norm1.bias"][3] = number
    save_encoder(tmp_path / "pre", encoder)
    with pytest.raises(WeightsError, match=r"1 numbers in blocks\.1\.norm1\.bias"):
        load_encoder(tmp_path / "pre")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depth": 10**9}, "fewer than the model has blocks"),
        ({"pos_embed": "sincos2d", "image_size": [32_000, 32_000]}, "would fill the memory"),
        ({"embed_dim": 10**12}, "no model has its sizes"),
    ],
)
def test_settings_beyond_all_measure_are_refused(encoder, tmp_path, settings, words):
    save_encoder(tmp_path / "pre", encoder)
    tensors, metadata = read_tensors(tmp_path / "pre")
    model = {**metadata["model"], **settings}
    write_tensors(tmp_path / "pre", tensors, {**metadata, "model": model})
    with pytest.raises(RunError, match=words):
        load_encoder(tmp_path / "pre")


def test_a_flat_pooling_of_another_size_is_left_out(config, tmp_path):
    """A norm behind it is as wide as there are patches."""
    given = replace(config.model, pool="flatten", fc_norm=True, patch_dropout=0.0)
    save_classifier(tmp_path / "w", Classifier(ViT(given), config.preprocess, CLASSES, 0))
    encoder = load_encoder(tmp_path / "w")
    larger = ViT(replace(given, image_size=(48, 48)))
    drawn = larger.fc_norm.weight.detach().clone()
    begun = encoder.load_into(larger)
    assert torch.equal(begun.fc_norm.weight, drawn)
    assert torch.equal(begun.blocks[1].mlp.fc1.weight, encoder.tensors["blocks.1.mlp.fc1.weight"])
