"""The numbers that rules are made of, each against an oracle."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score

from vitreous.core.threads import SideBySide
from vitreous.data.config import NO_AUGMENTATION, AugmentConfig, DataConfig
from vitreous.data.dataset import open_dataset
from vitreous.data.faces import write_faces
from vitreous.data.folder import list_labelled
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.data.transforms import augment
from vitreous.diagnosis.course import Course
from vitreous.diagnosis.gather import _inside, blind_loss, exact_copies, likeness
from vitreous.diagnosis.inside import look_inside
from vitreous.diagnosis.movement import relative_distance, relative_step
from vitreous.diagnosis.signals import Answers
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.optim import make_optimizers

MODEL = ModelConfig(
    image_size=(16, 16), patch_size=(8, 8), num_classes=3, embed_dim=32, depth=2, num_heads=2
)


def config(**train) -> RunConfig:
    preprocess = Preprocess(image_size=(16, 16))
    return RunConfig("scratch", DataConfig("x"), MODEL, preprocess, train=TrainConfig(**train))


def of_labels(labels: list[int]) -> PictureSet:
    count = len(labels)
    pixels = np.zeros((count, 16, 16, 3), np.uint8)
    return PictureSet(pixels, np.arange(count), torch.tensor(labels), ())


def test_answers_are_counted_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet([1, 1, 1], 200), rng.integers(0, 3, 200)
    answers = Answers.of(probabilities.argmax(1), labels)
    expected = balanced_accuracy_score(labels, probabilities.argmax(1))
    assert answers.balanced.value == pytest.approx(expected)
    assert answers.skill == pytest.approx(
        balanced_accuracy_score(labels, probabilities.argmax(1), adjusted=True)
    )
    assert answers.is_guessing
    perfect = Answers.of(labels, labels)
    assert (perfect.skill, perfect.is_guessing) == (1.0, False)
    one = Answers.of(np.ones(50, int), labels[:50])
    assert (one.favourite, one.favourite_share, one.skill) == (1, 1.0, pytest.approx(0))


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_no_answer_without_looking_has_a_lower_loss(weights, smoothing):
    """Held against the best constant logits that LBFGS finds."""
    labels = [0] * 60 + [1] * 30 + [2] * 10
    found = blind_loss(of_labels(labels), config(class_weights=weights, label_smoothing=smoothing))
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    counts = torch.bincount(torch.tensor(labels)).double()
    targets = F.one_hot(torch.tensor(labels)).double() * (1 - smoothing) + smoothing / 3
    if weights == "balanced":  # each picture has its class' weight
        targets *= (100 / (3 * counts))[labels][:, None]
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.expand(100, 3), targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert found == pytest.approx(closure().item(), rel=1e-6)


def test_a_course_is_read_from_the_log():
    train = [{"kind": "train", "step": n, "epoch": n / 10, "loss": loss, "learning_rate": n / 1000}
             for n, loss in enumerate([1.0, 5.0, 2.0, *[1.0] * 46, 0.5], start=1)]  # fmt: skip
    valid = [{"kind": "valid", "step": 10 + n, "epoch": 1 + n, "loss": loss}
             for n, loss in enumerate([3, 1, 2])]  # fmt: skip
    stopped = [{"kind": "stopped", "step": 51}]
    course = Course.of([*train, *valid, *stopped], 60)
    assert (course.first, course.peak, course.middle) == (1.0, 5.0, 1.0)
    assert course.last == pytest.approx((1 + 1 + 0.5) / 3)
    assert (course.steps, course.total_steps, course.non_finite_step) == (50, 60, 51)
    assert (course.valid_lowest, course.valid_lowest_epoch, course.valid_last) == (1, 2, 2)
    assert Course.of([], 10) == Course(total_steps=10)
    # The losses of the last steps were no number, and they were taken all the same.
    assert Course.of([*train, {**valid[0], "step": 60}], 60).steps == 60


def test_a_look_inside_is_autograds_and_changes_nothing():
    torch.manual_seed(0)
    model = ViT(replace(MODEL, head_hidden=(16,), activation="relu", init="keras2")).train()
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 3
    with torch.no_grad():
        model.head_mlp[0].bias[:12] = -1e6  # can never be on
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = look_inside(model, images, labels)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert found.off == pytest.approx(12 / 16, abs=4 / 16)
    assert found.off >= 12 / 16
    F.cross_entropy(model.eval()(images), labels).backward()
    features = model.pool(model.forward_tokens(images))
    assert found.size == pytest.approx(features.square().mean().sqrt().item(), rel=1e-5)
    squares = [
        weight.grad.square().sum()
        for name, weight in model.named_parameters()
        if not name.startswith("head")
    ]
    assert found.gradient == pytest.approx(math.sqrt(sum(squares)), rel=1e-5)
    with torch.no_grad():
        plain = features @ model.head_mlp[0].weight.T
        model.head_mlp[0].bias[:] = -plain.topk(2, dim=0).values.mean(0)
    assert look_inside(model, images, labels).off == 0  # each is on for one picture
    with torch.no_grad():
        model.head_mlp[0].bias[:] = -1e6
    dead = look_inside(model, images, labels)
    assert (dead.off, dead.gradient) == (1.0, 0.0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_is_as_large_as_it_is_said_to_be(optimizer):
    """Within a factor of three, on noise, where a hundred separates right from wrong."""
    torch.manual_seed(0)
    settings = TrainConfig(optimizer=optimizer, learning_rate=1e-3, weight_decay=0.0)
    model = ViT(MODEL)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = make_optimizers(model, settings, torch.float32, SideBySide(1))
    for group in (group for one in optimizers for group in one.param_groups):
        group["lr"] = 1e-3
    steps = []
    for _ in range(25):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        F.cross_entropy(model(torch.randn(16, 3, 16, 16)), torch.randint(3, (16,))).backward()
        for one in optimizers:
            one.step()
            one.zero_grad()
        steps.append(relative_distance(before, model.state_dict()))
    predicted = relative_step(first, settings)
    assert predicted is not None
    assert 1 / 3 < np.median(steps) / predicted < 3
    assert relative_distance(first, first) == 0
    doubled = {name: 2 * value for name, value in first.items()}
    assert relative_distance(first, doubled) == pytest.approx(1)


def test_blocks_drawn_as_zero_have_no_size():
    zeros = {"blocks.0.attn.proj.weight": torch.zeros(4, 4), "head.weight": torch.ones(3, 4)}
    assert relative_step(zeros, TrainConfig()) is None
    assert relative_distance(zeros, zeros) is None


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_faces(folder / "train", 20, size=16, seed=1)
    write_faces(folder / "valid", 6, size=16, seed=2)
    for number in range(3):  # leaks, under other names
        source = folder / "train" / "sad" / f"{number:05}.png"
        (folder / "valid" / "sad" / f"copy-{number}.png").write_bytes(source.read_bytes())
    cache = str(tmp_path_factory.mktemp("cache"))
    settings = DataConfig(str(folder), cache_dir=cache)
    return open_dataset(list_labelled(folder), settings, Preprocess(image_size=(16, 16)), 0)


def test_pictures_that_training_has_too_are_found(faces):
    found = exact_copies(faces, "valid")
    names = [faces.sets["valid"].paths[at].name for at in found]
    assert names == ["copy-0.png", "copy-1.png", "copy-2.png"]


def test_likeness_falls_with_the_strength_of_augmentation(faces):
    preprocess = Preprocess(image_size=(16, 16))
    images = normalise(faces.sets["train"].batch(np.arange(60))[0], preprocess)

    def of(settings: AugmentConfig) -> float:
        return likeness(images, augment(images, settings, torch.Generator().manual_seed(0)))

    kept = [of(NO_AUGMENTATION), of(AugmentConfig()), of(AugmentConfig(rotate_degrees=60.0)),
            of(AugmentConfig(rotate_degrees=180.0, shift=0.9, scale=0.9, affine_chance=1.0))
            ]  # fmt: skip
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == pytest.approx(1, abs=1e-5)
    assert kept[1] > 0.6
    assert kept[3] < 0.3
    assert of(replace(NO_AUGMENTATION, flip=1.0)) == pytest.approx(1, abs=1e-5)
    unrelated = likeness(images, images[torch.randperm(60, generator=torch.Generator())])
    assert abs(unrelated) < 0.2


def test_a_look_inside_takes_as_many_pictures_as_memory_allows(monkeypatch):
    """Training may have taken them in pieces; what is found is that of fewer pictures."""
    counts = []

    def look(model, images, labels):
        counts.append(len(images))
        if len(images) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return look_inside(model, images, labels)

    monkeypatch.setattr("vitreous.diagnosis.gather.look_inside", look)
    model, images, labels = ViT(MODEL), torch.randn(100, 3, 16, 16), torch.arange(100) % 3
    assert _inside(model, images, labels) == look_inside(model, images[:16], labels[:16])
    assert counts == [64, 32, 16]

    def break_down(model, images, labels):
        raise RuntimeError("another fault")

    monkeypatch.setattr("vitreous.diagnosis.gather.look_inside", break_down)
    with pytest.raises(RuntimeError, match="another fault"):
        _inside(model, images, labels)
