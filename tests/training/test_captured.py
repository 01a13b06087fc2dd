"""Steps that an NVIDIA GPU repeats from a recording; the plain step is the oracle."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess
from vitreous.model.chance import Draws, drawing_from
from vitreous.model.config import ModelConfig
from vitreous.model.layers import attend
from vitreous.training.captured import WARMUP, Captured
from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.feed import Feed
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import plan_epochs

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no NVIDIA GPU, or not asked for one (make test-gpu)"
)
CLASSES = ("angry", "happy", "sad")
STEPS = 3 * WARMUP


@pytest.fixture
def faces():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    return PictureSet(pixels, np.arange(40)[::-1].copy(), torch.arange(40) % 3, ())


def configuration(**train):
    return RunConfig(
        recipe="test",
        data=DataConfig("faces"),
        model=ModelConfig(
            image_size=(16, 16), patch_size=(8, 8), embed_dim=24, depth=2, num_heads=2,
            num_classes=3, dropout=0.1, drop_path_rate=0.2, pos_embed="rope2d",
        ),
        preprocess=Preprocess(image_size=(16, 16)),
        augment=AugmentConfig(mix_chance=0.5, erase_chance=0.5),
        train=TrainConfig(batch_size=8, **train),
    )  # fmt: skip


def trained(config, faces, recorded):
    learner = ClassLearner(config, faces, CLASSES)
    if not recorded:
        learner._update = learner._take_step
    plan = plan_epochs(2.0, len(faces) / 8)
    losses = [learner.learn(plan).item() for _ in range(STEPS)]
    return losses, learner.state


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_recorded_steps_are_the_plain_ones(faces, optimizer):
    config = configuration(optimizer=optimizer, precision="float32")
    plain, recorded = (trained(config, faces, how) for how in (False, True))
    assert recorded[0] == pytest.approx(plain[0], rel=1e-5)
    assert len(set(recorded[0])) == STEPS  # no step twice
    for name in ("model", "ema"):
        both = (getattr(state, name) for _, state in (plain, recorded))
        one, other = ((part.model if name == "ema" else part).state_dict() for part in both)
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5, msg=f"{name} {key}")


def test_dropout_is_drawn_anew_from_the_seed_of_each_step():
    x = torch.ones(1000, device="cuda")
    drop = Captured(lambda x: torch.nn.functional.dropout(x, 0.5).sum())
    found = []
    for seed in (1, 2, 3, 4, 5, 6, 5, 4):
        torch.manual_seed(seed)
        found.append(drop(x).item())
    assert found[4] == found[6]
    assert found[3] == found[7]
    assert len(set(found[3:6])) == 3
    torch.manual_seed(5)
    assert torch.nn.functional.dropout(x, 0.5).sum().item() == found[4]


def test_what_only_the_host_knows_is_not_recorded(faces):
    for settings in ({"grad_checkpointing": True}, {"optimizer": "keras_adam"}):
        learner = ClassLearner(configuration(**settings), faces, CLASSES)
        assert not isinstance(learner._update, Captured)
        losses, _ = trained(configuration(**settings), faces, recorded=True)
        assert np.isfinite(losses).all()


def test_an_old_recording_does_not_spoil_a_new_one(faces):
    """Learners refer to themselves, so one goes whenever garbage is collected."""
    old = ClassLearner(configuration(), faces, CLASSES)
    plan = plan_epochs(2.0, len(faces) / 8)
    for _ in range(WARMUP + 1):
        old.learn(plan)
    new = ClassLearner(configuration(), faces, CLASSES)
    original = new._take_step

    def untidy(*inputs):
        # Cycles enough that the collector would run, were it asked.
        for _ in range(200_000):
            cycle: list = []
            cycle.append(cycle)
        return original(*inputs)

    new._update = Captured(untidy)
    for _ in range(WARMUP):
        new.learn(plan)
    del old
    assert new.learn(plan).isfinite()
    assert gc.isenabled()


@pytest.mark.parametrize("change", [{"patch_dropout": 0.25}, {"attention_dropout": 0.2}])
def test_whatever_a_model_leaves_out_is_drawn_anew_in_each_recorded_step(faces, change):
    config = configuration(precision="float32", learning_rate=1e-12)
    config = replace(config, model=replace(config.model, **change))
    plain, recorded = (trained(config, faces, how)[0] for how in (False, True))
    assert recorded == pytest.approx(plain, rel=1e-4)
    assert len(set(recorded)) == STEPS


def test_attention_draws_for_a_picture_the_same_wherever_it_is():
    q = torch.rand(6, 2, 5, 8, device="cuda")

    def attended(pictures, batch, first):
        torch.manual_seed(4)
        with drawing_from(Draws(None, batch, first)):
            return attend(pictures, pictures, pictures, 0.5)

    whole = attended(q, None, 0)
    for first, last in ((0, 2), (2, 3), (3, 6)):
        assert torch.allclose(attended(q[first:last], 6, first), whole[first:last])


def test_pictures_come_from_the_gpu_or_from_the_host_alike(faces, monkeypatch):
    device, positions = torch.device("cuda"), [3, 0, 3, 39]
    there = Feed(faces, device)
    monkeypatch.setattr("vitreous.training.feed._GPU_SHARE", 0.0)
    here = Feed(faces, device)
    for one, other in zip(there.batch(positions), here.batch(positions), strict=True):
        assert torch.equal(one, other)
    pixels, labels = faces.batch(positions)
    assert torch.equal(here.batch(positions)[0].cpu(), pixels)
    assert torch.equal(there.batch(positions)[1], labels)


def test_a_run_goes_on_after_a_recorded_step(faces, tmp_path):
    from vitreous.training.checkpoint import load_newest_checkpoint, snapshot, write_checkpoint

    config = configuration(precision="float32", optimizer="muon")
    losses, state = trained(config, faces, recorded=True)
    learner = ClassLearner(config, faces, CLASSES)
    plan = plan_epochs(2.0, len(faces) / 8)
    for _ in range(STEPS - 3):
        learner.learn(plan)
    write_checkpoint(tmp_path, snapshot(learner.state, learner.tensors()))
    other = ClassLearner(replace(config), faces, CLASSES)
    assert load_newest_checkpoint(tmp_path, other.state)
    rest = [other.learn(plan).item() for _ in range(3)]
    assert rest == pytest.approx(losses[-3:], rel=1e-5)
    for key, value in state.model.state_dict().items():
        torch.testing.assert_close(other.state.model.state_dict()[key], value, rtol=1e-4, atol=1e-5)
