"""One patch decides the class: it is found, whatever the pooling, and checks tell who finds it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.planted import CLASSES, POOLINGS, learned, planted_pictures
from vitreous.data.preprocess import Preprocess, denormalise
from vitreous.explanation.methods import Named
from vitreous.explanation.pictures import Question, explain_pictures
from vitreous.explanation.places import to_patches
from vitreous.explanation.sanity import ALIKE, shuffled, similarity
from vitreous.model.config import ModelConfig
from vitreous.training.classifier import Classifier

SMALL = ModelConfig(
    image_size=(32, 32), patch_size=(8, 8), embed_dim=32, depth=2, num_heads=2, num_classes=4
)
BUILDS = {
    **{pool: {"pool": pool, **needs} for pool, needs in POOLINGS.items()},
    "stem": {
        "pool": "flatten",
        "class_token": False,
        "pos_embed": "sincos2d",
        "stem": (8, 16, 32),
        "stem_blocks": (1, 1, 0),
        "init": "identity",
    },
    "turned, normed and scaled": {
        "pool": "mean",
        "num_register_tokens": 2,
        "pos_embed": "rope2d",
        "qk_norm": True,
        "layer_scale_init": 0.1,
    },
}
STEPS = 130
PREPROCESS = Preprocess((32, 32), std=(0.2, 0.2, 0.2))  # noise and stripes fit into bytes


@pytest.fixture(scope="module")
def model_of():
    """A model of a build that has learned planted patches, made once."""
    made = {}

    def make(build):
        if build not in made:
            made[build] = learned(replace(SMALL, **BUILDS[build]), STEPS)
        return made[build]

    return make


def questions(model, count=120):
    """Pictures with a patch that are answered rightly, the same without it, classes and places."""
    generator = torch.Generator().manual_seed(5)
    images, classes, at = planted_pictures(count, 32, 8, generator)
    with torch.no_grad():
        right = (model(images).argmax(1) == classes) & (classes < CLASSES.index("none"))
    assert right.sum() > 0.6 * count
    images = images[right]
    blurred = images.mean((2, 3), keepdim=True).expand_as(images)
    return images, blurred, classes[right], at[right]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("method", ["relevance", "integrated"])
def test_the_decisive_patch_is_the_hottest(model_of, build, method):
    model = model_of(build)
    *inputs, at = questions(model)
    found = to_patches(Named(method)(model, *inputs), (8, 8)).argmax(1)
    assert (found == at).float().mean() >= 0.9


def test_a_method_that_never_asks_the_model_fails_its_sanity_check(model_of):
    def edges(model, images, blurred, classes):
        return (images - blurred).abs().sum(1)

    model = model_of("cls")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    *inputs, _ = questions(model, 12)
    assert similarity(edges, model, *inputs) == pytest.approx(1)
    for method in ("relevance", "rollout", "integrated"):
        assert similarity(Named(method), model, *inputs) < ALIKE
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_a_sanity_check_asks_for_one_picture_at_a_time(model_of):
    asked = []

    def noting(model, images, blurred, classes):
        asked.append((len(images), len(blurred), len(classes)))
        return images.sum(1)

    *inputs, _ = questions(model_of("cls"), 12)
    similarity(noting, model_of("cls"), *inputs)
    assert asked == [(1, 1, 1)] * (3 * len(inputs[0]))


def test_shuffled_weights_are_the_same_numbers_elsewhere(model_of):
    model = model_of("stem")
    other = shuffled(model, 0, 0)
    assert not other.training
    for name, tensor in model.state_dict().items():
        mine, theirs = tensor.flatten(), other.state_dict()[name].flatten()
        assert torch.equal(mine.sort().values, theirs.sort().values), name
        assert len(mine) == 1 or mine.unique().numel() == 1 or not torch.equal(mine, theirs), name
    again, next_draw = shuffled(model, 0, 0).head.weight, shuffled(model, 0, 1).head.weight
    assert torch.equal(other.head.weight, again)
    assert not torch.equal(other.head.weight, next_draw)


def classifier_and_pictures(model, count):
    images, _, classes, at = questions(model)
    pixels = list(denormalise(images[:count], PREPROCESS).numpy())
    return Classifier(model, PREPROCESS, CLASSES, None), pixels, classes[:count], at[:count]


def test_explanations_find_the_patch_and_are_worth_more_than_chance(model_of):
    classifier, pixels, classes, at = classifier_and_pictures(model_of("mean"), 6)
    files = [f"{number}.png" for number in range(6)]
    found, checks = explain_pictures(classifier, files, pixels, Question())
    assert set(checks) == {"relevance", "integrated", "rollout", "attention"}
    gains = [check.gain.value for check in checks.values()]
    assert gains == sorted(gains, reverse=True)
    assert checks["relevance"].passed
    assert checks["relevance"].gain.low > 0
    for each, name, label, place in zip(found, files, classes, at, strict=True):
        assert each.file == name
        assert each.label == each.answer == CLASSES[label]
        assert sum(each.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert set(each.maps) == {name for name, check in checks.items() if check.passed}
        values = each.maps["relevance"].values
        assert values.shape == (32, 32)
        assert np.abs(values).max() == pytest.approx(1)
        assert divmod(int(values.argmax()), 32) == (8 * (place // 4), 8 * (place % 4))
        assert each.attention.shape == (2, 2, 4, 4)
        assert each.maps["relevance"].faithfulness.gain > 0


def test_a_method_that_fails_is_shown_as_such(model_of):
    """Attention of a first-layer head has little to do with the answer."""
    classifier, pixels, _, _ = classifier_and_pictures(model_of("cls"), 4)
    untrained = replace(classifier, model=shuffled(classifier.model, 3, 0))
    question = Question.of("attention", "none", 1, 1)
    found, checks = explain_pictures(untrained, list("abcd"), pixels, question)
    assert not checks["attention"].passed
    assert "no better than random order" in str(checks["attention"])
    assert [set(each.maps) for each in found] == [{"attention"}] * 4
    assert {each.label for each in found} == {"none"}


def test_where_none_passes_the_first_is_kept(model_of):
    classifier, pixels, _, _ = classifier_and_pictures(model_of("cls"), 1)
    deaf = shuffled(classifier.model, 3, 0)
    torch.nn.init.zeros_(deaf.head.weight)  # so that nothing in a picture counts
    classifier = replace(classifier, model=deaf)
    found, checks = explain_pictures(classifier, ["a"], pixels, Question())
    assert not any(check.passed for check in checks.values())
    assert set(found[0].maps) == {"relevance"}


def test_one_head_is_shown_of_the_picture_alone_though_answers_are_of_its_mirror_image_too(
    model_of,
):
    """A head that looks left would be drawn looking both ways, unlike among all heads."""
    classifier, pixels, _, _ = classifier_and_pictures(model_of("cls"), 1)
    classifier = replace(classifier, preprocess=replace(PREPROCESS, mirror=True))
    (found,), _ = explain_pictures(classifier, ["a"], pixels, Question.of(None, None, 2, 1))
    head = found.attention[1, 0]
    drawn = found.maps["attention"].values[::8, ::8]
    np.testing.assert_allclose(drawn, head / head.max(), rtol=1e-4)
    assert not np.allclose(head, head[:, ::-1], rtol=0.05)
