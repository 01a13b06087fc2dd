import math
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.config import dump_toml
from vitreous.core.console import Console
from vitreous.core.files import read_json
from vitreous.core.rng import torch_stream
from vitreous.core.run import RunFolder
from vitreous.data.config import AugmentConfig
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import normalise
from vitreous.errors import ConfigError, Interrupted
from vitreous.model.config import ModelConfig
from vitreous.model.patches import extract_patches
from vitreous.model.positions import sincos2d
from vitreous.training import pretrain, trainer
from vitreous.training.checkpoint import load_newest_checkpoint, snapshot, write_checkpoint
from vitreous.training.config import PretrainConfig, RunConfig, TrainConfig
from vitreous.training.encoder import load_encoder
from vitreous.training.logbook import read_logbook
from vitreous.training.optim import parameter_groups
from vitreous.training.plan import plan_epochs
from vitreous.training.pretrain import (
    MaskedAutoencoder,
    PatchLearner,
    draw_hidden,
    hidden_patch_loss,
    loss_on,
    normalise_patches,
)
from vitreous.training.trainer import Clock, ValidScore

SMALL = PretrainConfig(decoder_dim=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture
def hiding(config) -> RunConfig:
    """As `config`, but for learning without labels."""
    return replace(
        config,
        augment=AugmentConfig(erase_chance=0.0, mix_chance=0.0),
        train=replace(config.train, label_smoothing=0.0),
        pretrain=SMALL,
    )


def draw(count: int, model: ModelConfig, seed: int = 0) -> torch.Tensor:
    return draw_hidden(count, model.num_patches, SMALL, torch_stream(seed, "test"))


def shaken(model: MaskedAutoencoder) -> MaskedAutoencoder:
    """With weights that a trained model could have: none is zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


RENAMED = (
    ("vit.encoder.layer.", "encoder.blocks."),
    ("vit.layers.", "encoder.blocks."),
    ("vit.embeddings.patch_embeddings.projection", "encoder.patch_embed.proj"),
    ("vit.embeddings.position_embeddings", "encoder.pos_embed"),
    ("vit.embeddings.cls_token", "encoder.cls_token"),
    ("vit.layernorm", "encoder.norm"),
    ("decoder.decoder_layers.", "decoder.blocks."),
    ("decoder.decoder_", "decoder."),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attn.proj"),
    ("attention.o_proj", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def from_transformers(theirs: dict[str, torch.Tensor], patch: int) -> dict[str, torch.Tensor]:
    ours = {}
    for name, tensor in theirs.items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        ours[name] = tensor
    for name in [name for name in ours if ".q_proj." in name]:
        parts = [ours.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        ours[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    for kind in ("weight", "bias"):
        # they tell a pixel's three colours side by side, we tell colour by colour
        values = ours[f"decoder.pred.{kind}"].unflatten(0, (patch, patch, 3))
        ours[f"decoder.pred.{kind}"] = values.movedim(2, 0).flatten(0, 2)
    del ours["decoder.pos_embed"]
    return ours


def test_what_is_told_and_its_loss_are_those_of_transformers(transformers):
    oracle = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=128, layer_norm_eps=1e-6,
            decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
            decoder_intermediate_size=64, norm_pix_loss=True, mask_ratio=0.75,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        # their class token has no position here, and their sine table orders its parts otherwise
        oracle.decoder.decoder_pos_embed[0] = torch.cat([torch.zeros(1, 16), sincos2d((4, 4), 16)])
    model = MaskedAutoencoder(
        ModelConfig(image_size=(32, 32), patch_size=(8, 8), embed_dim=32, depth=2, num_heads=2),
        SMALL,
    ).eval()
    head = {name: value for name, value in model.state_dict().items() if ".head." in name}
    model.load_state_dict(from_transformers(oracle.state_dict(), 8) | head)
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    theirs = oracle(images, noise=noise)
    hidden = theirs.mask.bool()
    told = model(images, hidden)
    assert hidden.sum(1).tolist() == [12, 12, 12]
    by_pixel = told.unflatten(2, (3, 8, 8)).movedim(2, 4).flatten(2)
    torch.testing.assert_close(by_pixel, theirs.logits, rtol=1e-4, atol=1e-5)
    ours = hidden_patch_loss(told, images, hidden, (8, 8))
    torch.testing.assert_close(ours, theirs.loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stem", [(), (8, 16, 32)])
def test_hidden_pixels_do_not_reach_the_model(config, stem, training):
    model = shaken(MaskedAutoencoder(replace(config.model, stem=stem), SMALL)).train(training)
    images, hidden = torch.randn(4, 3, 32, 32), draw(4, config.model)
    at = hidden.view(4, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = torch.where(at, torch.randn(4, 3, 32, 32) * 9, images)
    assert torch.equal(model.encode(images, hidden), model.encode(other, hidden))
    assert torch.equal(model(images, hidden), model(other, hidden))
    seen = torch.where(at, images, torch.randn(4, 3, 32, 32))
    tokens, changed = model.encode(images, hidden), model.encode(seen, hidden)
    assert tokens.shape == (4, 4, 32)
    assert not torch.isclose(tokens, changed).any(dim=-1).all()


def test_visible_tokens_are_those_of_the_encoder_that_sees_all_its_places(config):
    """With one block that lets nothing pass between tokens, hiding changes no visible token."""
    plain = replace(config.model, stem=(), pos_embed="learned", class_token=True, depth=1)
    model = shaken(MaskedAutoencoder(plain, SMALL)).eval()
    torch.nn.init.zeros_(model.encoder.blocks[0].attn.proj.weight)
    images, hidden = torch.randn(2, 3, 32, 32), draw(2, plain)
    all_tokens = model.encoder.forward_tokens(images)
    for row in range(2):
        kept = torch.cat([torch.tensor([True]), ~hidden[row]])
        found = model.encode(images, hidden)[row]
        torch.testing.assert_close(found, all_tokens[row, kept])


def test_the_loss_counts_hidden_patches_only():
    images, hidden = torch.randn(3, 3, 16, 24) * 2 + 1, torch.rand(3, 6) < 0.5
    hidden[:, 0], hidden[:, 1] = True, False
    told = torch.randn(3, 6, 192, requires_grad=True)
    loss = hidden_patch_loss(told, images, hidden, (8, 8))
    errors = []
    for picture in range(3):
        for patch in range(6):
            top, left = patch // 3 * 8, patch % 3 * 8
            pixels = images[picture, :, top : top + 8, left : left + 8].double().numpy()
            target = (pixels - pixels.mean()) / math.sqrt(pixels.var(ddof=1) + 1e-6)
            if hidden[picture, patch]:
                answer = told[picture, patch].detach().double().numpy()
                errors.append(np.mean((answer - target.reshape(-1)) ** 2))
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)
    loss.backward()
    assert (told.grad.abs().amax(-1) > 0).equal(hidden)


def test_telling_the_mean_costs_one():
    images, hidden = torch.rand(4, 3, 32, 32), torch.ones(4, 16, dtype=torch.bool)
    nothing = torch.zeros(4, 16, 192)
    assert hidden_patch_loss(nothing, images, hidden, (8, 8)).item() == pytest.approx(1, abs=0.01)


def test_equally_many_patches_are_hidden_anywhere():
    hidden = draw_hidden(4000, 36, PretrainConfig(), torch_stream(0, "mask", 3))
    assert hidden.sum(1).unique().tolist() == [27]
    torch.testing.assert_close(hidden.float().mean(0), torch.full((36,), 0.75), rtol=0, atol=0.03)
    # pairs too: hiding one patch says nothing of its neighbour
    both = (hidden[:, 7] & hidden[:, 8]).float().mean().item()
    assert both == pytest.approx(0.75 * 26 / 35, abs=0.03)
    assert torch.equal(hidden, draw_hidden(4000, 36, PretrainConfig(), torch_stream(0, "mask", 3)))


def test_what_is_filled_in_stands_in_its_place(config, monkeypatch):
    model = MaskedAutoencoder(config.model, SMALL).eval()
    images, hidden = torch.rand(2, 3, 32, 32), draw(2, config.model)
    exact, _, _ = normalise_patches(extract_patches(images, (8, 8)))
    monkeypatch.setattr(model, "forward", lambda *_: exact)
    shown, filled = model.fill_in(images, hidden)
    torch.testing.assert_close(filled, images)
    left = extract_patches(shown, (8, 8))
    assert (left.abs().amax(-1) > 0).equal(~hidden)
    monkeypatch.setattr(model, "forward", lambda *_: torch.zeros_like(exact))
    _, filled = model.fill_in(images, hidden)
    patches, true = extract_patches(filled, (8, 8)), extract_patches(images, (8, 8))
    assert torch.equal(patches[~hidden], true[~hidden])
    torch.testing.assert_close(patches[hidden].mean(-1), true[hidden].mean(-1))
    assert patches[hidden].std(-1).max() < 1e-6


@pytest.mark.parametrize("stem", [(), (8, 16, 32)])
def test_a_model_overfits_one_batch(calm_config, faces, stem):
    batch = PictureSet(faces.pixels, faces.rows[:2], faces.labels[:2], ())
    config = replace(
        calm_config,
        model=replace(calm_config.model, stem=stem),
        train=replace(calm_config.train, batch_size=2),
        pretrain=replace(SMALL, decoder_dim=64),
    )
    learner, plan = PatchLearner(config, batch), plan_epochs(300, 1)
    losses = [learner.learn(plan).item() for _ in range(300)]
    assert losses[0] > 0.9
    assert sum(losses[-10:]) / 10 < 0.25  # other masks at every step


def weights(learner: PatchLearner) -> list[torch.Tensor]:
    state = learner.state
    moments = [
        value
        for parameter in state.model.parameters()
        for optimizer in state.optimizers
        for _, value in sorted(optimizer.state[parameter].items())
    ]
    return [*state.model.state_dict().values(), *state.ema.model.state_dict().values(), *moments]


def same_bits(one: PatchLearner, other: PatchLearner) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


def test_one_seed_gives_the_same_bits_and_another_does_not(hiding, faces):
    plan = plan_epochs(2, 3)
    other = replace(hiding, train=replace(hiding.train, seed=1))
    learners = [PatchLearner(config, faces) for config in (hiding, hiding, other)]
    for learner in learners:
        for _ in range(4):
            learner.learn(plan)
    assert same_bits(learners[0], learners[1])
    assert not same_bits(learners[0], learners[2])


def test_ten_steps_are_five_and_a_resume_and_five(hiding, faces, tmp_path):
    plan = plan_epochs(10, 1)
    straight, before, after = (PatchLearner(hiding, faces) for _ in range(3))
    for _ in range(10):
        straight.learn(plan)
    for _ in range(5):
        before.learn(plan)
    write_checkpoint(tmp_path, snapshot(before.state, before.tensors()))
    torch.manual_seed(12345)  # whatever else happened in the other process
    assert load_newest_checkpoint(tmp_path, after.state)
    for _ in range(5):
        after.learn(plan)
    assert same_bits(straight, after)


def run_pretraining(config, faces, path, validate=None):
    run = RunFolder.open(path) if path.exists() else RunFolder.create(
        path, {"config.toml": dump_toml(config)}
    )  # fmt: skip
    validate = validate or (lambda model: ValidScore(loss=loss_on(model, faces, config)))
    clock = Clock(time.monotonic(), 0.0, 0.0)
    console = Console(quiet=True)
    learner = trainer.train(
        config, faces, PatchLearner, validate, run, trainer.Sitting(console, clock)
    )
    return run, learner


def test_the_trainer_keeps_the_lowest_loss(hiding, faces, tmp_path):
    scores = iter([0.9, 0.4, 0.6, 0.5, 0.7])
    run, learner = run_pretraining(
        hiding, faces, tmp_path / "run", lambda model: ValidScore(loss=next(scores))
    )
    valid = [line for line in read_logbook(run.metrics) if line["kind"] == "valid"]
    assert [line["best"] for line in valid] == [True, True, False, False, False]
    assert set(valid[0]) == {"kind", "step", "epoch", "seconds", "loss", "best"}
    assert (learner.state.best.step, learner.state.best.loss) == (6, 0.4)
    assert run.best.read_bytes() != run.last.read_bytes()


def test_the_loss_falls_and_the_encoder_is_what_was_averaged(hiding, faces, tmp_path):
    run, learner = run_pretraining(hiding, faces, tmp_path / "run")
    losses = [line["loss"] for line in read_logbook(run.metrics) if line["kind"] == "valid"]
    assert losses[-1] < losses[0]
    encoder = load_encoder(run.last)
    assert encoder.config == hiding.model
    averaged = learner.state.ema.model.encoder.state_dict()
    assert set(averaged) - set(encoder.tensors) == {"head.weight", "head.bias"}
    assert all(torch.equal(averaged[name], value) for name, value in encoder.tensors.items())


def test_a_stopped_run_goes_on_to_the_same_bits(hiding, faces, tmp_path, monkeypatch):
    straight, _ = run_pretraining(hiding, faces, tmp_path / "straight")
    learn = trainer.Learner.learn

    def stop(self, plan):
        loss = learn(self, plan)
        if self.state.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Learner, "learn", stop)
        with pytest.raises(Interrupted, match="Go on with: vitreous pretrain --resume"):
            run_pretraining(hiding, faces, tmp_path / "stopped")
    resumed, _ = run_pretraining(hiding, faces, tmp_path / "stopped")
    for name in ("best", "last"):
        assert getattr(resumed, name).read_bytes() == getattr(straight, name).read_bytes()


def test_a_budget_measures_this_task_too(hiding, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Learner, "measure_step_s", lambda learner, plan: 0.5)
    train = replace(hiding.train, budget_s=600.0, epochs=2.0)
    run, learner = run_pretraining(replace(hiding, train=train), faces, tmp_path / "run")
    plan = read_json(run.plan)
    assert plan["step_s"] == 0.5
    assert plan["evaluation_s"] > 0
    assert learner.state.step == round(2.0 * len(faces) / hiding.train.batch_size)


def test_validation_always_hides_the_same(hiding, faces, monkeypatch):
    model = shaken(MaskedAutoencoder(hiding.model, SMALL))
    first = loss_on(model.train(), faces, hiding)
    assert loss_on(model, faces, hiding) == first
    monkeypatch.setattr(pretrain, "_BATCH_SIZE", 16)  # 16, 16 and the last 4
    by_hand = []
    for start, end in ((0, 16), (16, 32), (32, 36)):
        images = normalise(faces.batch(range(start, end))[0], hiding.preprocess)
        hidden = draw_hidden(end - start, 16, SMALL, torch_stream(0, "valid mask", start))
        with torch.no_grad():
            told = model.eval()(images, hidden)
        by_hand += [hidden_patch_loss(told, images, hidden, (8, 8)).item()] * (end - start)
    assert loss_on(model, faces, hiding) == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize(
    "change",
    [
        {"class_token": True, "num_register_tokens": 2, "pool": "map", "pos_embed": "learned"},
        {"pool": "flatten", "patch_dropout": 0.0, "head_hidden": (8,), "final_norm": False},
        {"init": "keras2", "mlp_output_activation": True, "head_dim": 32, "qk_norm": True},
    ],
)
def test_any_encoder_can_learn_this_way(hiding, faces, change):
    config = replace(hiding, model=replace(hiding.model, **change))
    learner, plan = PatchLearner(config, faces), plan_epochs(1, 3)
    assert math.isfinite(learner.learn(plan).item())
    moved = {one for optimizer in learner.state.optimizers for one in optimizer.state}
    untouched = [name for name, parameter in learner.state.model.named_parameters()
                 if parameter not in moved]  # fmt: skip
    assert untouched == ["encoder.head.weight", "encoder.head.bias"]
    rates = [module for module in learner.state.model.modules()
             if getattr(module, "rate", 0.0) or getattr(module, "p", 0.0)]  # fmt: skip
    assert rates == []
    encoder = learner.state.model.encoder
    assert encoder.config.patch_dropout == 0.0
    assert [block.attn.attention_dropout for block in encoder.blocks] == [0.0] * 2


def test_weight_decay_leaves_tokens_and_positions_alone(hiding):
    model = MaskedAutoencoder(replace(hiding.model, class_token=True, num_register_tokens=1), SMALL)
    _, (decayed, free) = parameter_groups(model, TrainConfig())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {"encoder.cls_token", "encoder.pos_embed", "encoder.reg_token",
            "decoder.mask_token"} <= {names[id(one)] for one in free["params"]}  # fmt: skip
    assert "decoder.pred.weight" in {names[id(one)] for one in decayed["params"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pretrain": {"mask_ratio": 1.0}}, "lies between 0 and 1"),
        ({"pretrain": {"mask_ratio": 0.98}}, "leaves 0 of 16 patches visible"),
        ({"pretrain": {"decoder_dim": 18}}, "not a multiple of 4"),
        ({"pretrain": {"decoder_depth": 0}}, "at least 1"),
        ({"train": {"label_smoothing": 0.1}}, "train.label_smoothing has no effect"),
        ({"augment": {"mix_chance": 0.1}}, "augment.mix_chance has no effect"),
        ({"data": {"calibration_share": 0.1}}, "data.calibration_share has no effect"),
    ],
)
def test_settings_that_make_no_sense_are_refused(hiding, change, words):
    with pytest.raises(ConfigError, match=words):
        replace(hiding, **{
            section: replace(getattr(hiding, section), **values)
            for section, values in change.items()
        })  # fmt: skip
