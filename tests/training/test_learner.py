import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, denormalise
from vitreous.data.stream import StreamedPixels
from vitreous.model import onednn
from vitreous.model.onednn import OneDnnLinear, has_onednn
from vitreous.report.collect import augmented_sample
from vitreous.training.checkpoint import load_newest_checkpoint, snapshot, write_checkpoint
from vitreous.training.config import TrainConfig
from vitreous.training.device import choose_device, choose_precision
from vitreous.training.feed import Feed
from vitreous.training.learner import ClassLearner, Learner
from vitreous.training.optim import Muon, parameter_groups
from vitreous.training.plan import plan_epochs

CLASSES = ("angry", "happy", "sad")


def weights(learner: Learner) -> list[torch.Tensor]:
    state = learner.state
    moments = [
        value
        for parameter in state.model.parameters()
        for optimizer in state.optimizers
        for _, value in sorted(optimizer.state.get(parameter, {}).items())
    ]
    return [*state.model.state_dict().values(), *state.ema.model.state_dict().values(), *moments]


def same_bits(one: Learner, other: Learner) -> bool:
    pairs = zip(weights(one), weights(other), strict=True)
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)


@pytest.mark.parametrize("stem", [(), (8, 16, 32)])
def test_a_model_overfits_one_batch(calm_config, faces, stem):
    model = replace(calm_config.model, stem=stem)
    batch = PictureSet(faces.pixels, faces.rows[:12], faces.labels[:12], ())
    learner = ClassLearner(replace(calm_config, model=model), batch, CLASSES)
    plan = plan_epochs(120, 1)
    losses = [learner.learn(plan).item() for _ in range(120)]
    assert losses[0] > 0.9
    assert losses[-1] < 0.05


def test_one_seed_gives_the_same_bits_and_another_does_not(config, faces):
    plan = plan_epochs(2, 3)
    first, again = (ClassLearner(config, faces, CLASSES) for _ in range(2))
    other = ClassLearner(replace(config, train=replace(config.train, seed=1)), faces, CLASSES)
    for learner in (first, again, other):
        for _ in range(4):
            learner.learn(plan)
    assert same_bits(first, again)
    assert not same_bits(first, other)


@pytest.mark.parametrize("plain_share", [0.1, 1.0])
def test_the_report_shows_what_the_first_step_sees(config, faces, plain_share):
    changes = replace(config.augment, mix_chance=1.0, erase_chance=1.0, plain_share=plain_share)
    config = replace(config, augment=changes)
    images, _ = ClassLearner(config, faces, CLASSES).inputs(0, progress=0.0)
    expected = denormalise(images, config.preprocess).numpy()
    assert np.array_equal(augmented_sample(faces, config), expected)


@pytest.mark.skipif(not has_onednn(), reason="this PyTorch is built without oneDNN")
def test_a_float32_learner_takes_the_same_steps_by_onednn(monkeypatch, config, faces):
    config = replace(config, train=replace(config.train, precision="float32"))
    monkeypatch.setattr(onednn, "_FEWEST_WEIGHTS", 0)
    found = []
    for is_by_amd, dtype in ((False, "float32"), (True, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(onednn, "is_by_amd", lambda is_so=is_by_amd: is_so)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        train = replace(config.train, precision=dtype)
        learner = ClassLearner(replace(config, train=train), faces, CLASSES)
        is_taken = any(isinstance(one, OneDnnLinear) for one in learner.state.model.modules())
        assert is_taken == (is_by_amd and dtype == "float32")
        found.append([learner.learn(plan_epochs(5, 1)).item() for _ in range(5)])
    assert found[1] == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_ten_steps_are_five_and_a_resume_and_five(config, faces, tmp_path, optimizer):
    config = replace(config, train=replace(config.train, optimizer=optimizer))
    plan = plan_epochs(10, 1)
    straight, before, after = (ClassLearner(config, faces, CLASSES) for _ in range(3))
    for _ in range(10):
        straight.learn(plan)
    for _ in range(5):
        before.learn(plan)
    write_checkpoint(tmp_path, snapshot(before.state, before.tensors()))
    torch.manual_seed(12345)  # whatever else happened in the other process
    assert load_newest_checkpoint(tmp_path, after.state)
    assert after.state.step == 5
    for _ in range(5):
        after.learn(plan)
    assert same_bits(straight, after)


def test_inputs_made_ahead_are_those_of_the_plan_as_it_is_now(config, faces):
    """Step 1 is prepared as one of many, and then it is near the end, where nothing is mixed."""
    config = replace(config, augment=replace(config.augment, mix_chance=1.0))
    long, short = plan_epochs(100.0, 3.0), plan_epochs(1.0, 2.0)
    learner, other = (ClassLearner(config, faces, CLASSES) for _ in range(2))
    seen = []
    original = learner.loss
    learner.loss = lambda model, *inputs: seen.append(inputs) or original(model, *inputs)
    learner.learn(long)
    learner.learn(long)
    learner.learn(short)
    wanted = [(0, long), (1, long), (2, short)]
    for found, (step, plan) in zip(seen, wanted, strict=True):
        for one, same in zip(found, other.inputs(step, plan.progress(step)), strict=True):
            assert torch.equal(one, same)
    plain, mixed = (other.inputs(2, progress)[1] for progress in (1.0, 0.0))
    assert not torch.equal(plain, mixed)  # else there was nothing to tell apart


def test_an_error_while_inputs_are_made_ahead_is_raised(config, faces):
    learner = ClassLearner(config, faces, CLASSES)
    plan = plan_epochs(100.0, 3.0)
    learner.learn(plan)
    learner.learn(plan)
    learner.feed = Feed(replace(faces, pixels=faces.pixels[:0]), learner.device)
    learner.learn(plan)  # was made before they went
    with pytest.raises(IndexError):
        learner.learn(plan)


def test_the_end_of_a_run_is_plain(config, faces):
    learner = ClassLearner(config, faces, CLASSES)
    _, targets = learner.batch(0, plain=True)
    assert targets.max().item() == pytest.approx(0.9 + 0.1 / 3)
    assert targets.min().item() == pytest.approx(0.1 / 3)


def test_annotators_shares_are_learned_only_when_asked_for(config, faces):
    votes = torch.rand(len(faces), 3)
    voted = replace(faces, votes=votes / votes.sum(1, keepdim=True))
    soft = replace(config, train=replace(config.train, soft_labels=True, label_smoothing=0.0))
    hard = replace(config, train=replace(config.train, label_smoothing=0.0))
    learner = ClassLearner(soft, voted, CLASSES)
    _, targets = learner.batch(0, plain=True)
    assert torch.equal(targets, voted.votes[learner.order.step(0)])
    _, targets = ClassLearner(hard, voted, CLASSES).batch(0, plain=True)
    assert torch.equal(targets.argmax(1), faces.labels[learner.order.step(0)])
    assert torch.equal(targets.max(1).values, torch.ones(len(targets)))


def test_balanced_weights_follow_the_frequencies(config, faces):
    train = replace(config.train, class_weights="balanced")
    uneven = PictureSet(faces.pixels, faces.rows[:4], torch.tensor([0, 0, 1, 2]), ())
    found = ClassLearner(replace(config, train=train), uneven, CLASSES).class_weights
    torch.testing.assert_close(found, torch.tensor([4 / 6, 4 / 3, 4 / 3]))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_balanced_weight_is_a_pictures_and_leaves_its_class_the_best_answer(
    config, faces, smoothing
):
    """At 30 to 1 weights of a target's entries would have the rare class answered always."""
    train = replace(config.train, class_weights="balanced", label_smoothing=smoothing)
    labels = torch.tensor([0] * 30 + [1] * 3 + [2])
    uneven = PictureSet(faces.pixels, faces.rows[:34], labels, ())
    learner = ClassLearner(replace(config, train=train), uneven, CLASSES)
    seen = labels[learner.order.step(0)]
    images, targets = learner.batch(0, plain=True)
    assert torch.equal(targets.argmax(1), seen)
    model = learner.state.model.eval()
    each = F.cross_entropy(model(images), seen, reduction="none", label_smoothing=smoothing)
    wanted = (each * learner.class_weights[seen]).mean()
    torch.testing.assert_close(learner.loss(model, images, targets), wanted, rtol=1e-2, atol=1e-3)


def test_a_class_without_pictures_has_a_weight(config, faces):
    train = replace(config.train, class_weights="balanced")
    two = PictureSet(faces.pixels, faces.rows[:4], torch.tensor([0, 0, 0, 2]), ())
    learner = ClassLearner(replace(config, train=train), two, CLASSES)
    assert learner.learn(plan_epochs(4, 1)).isfinite()


def test_pictures_that_are_decoded_when_asked_for_stay_where_they_are(faces, tmp_path):
    streamed = StreamedPixels([tmp_path / "a.png"], Preprocess(image_size=(8, 8)), 1)
    feed = Feed(replace(faces, pixels=streamed), torch.device("cuda"))  # asks no GPU for room
    assert feed._on_gpu is None


def test_weight_decay_is_for_matrices_only(config):
    from vitreous.model.vit import ViT

    model = ViT(replace(config.model, class_token=True, num_register_tokens=1, pool="map"))
    _, (decayed, free) = parameter_groups(model, TrainConfig())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    in_free = {names[id(parameter)] for parameter in free["params"]}
    assert {"cls_token", "pos_embed", "reg_token", "attn_pool.latent"} <= in_free
    assert "blocks.0.attn.qkv.weight" not in in_free
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_muon_turns_the_blocks_matrices_and_adamw_the_rest(config, faces):
    train = replace(config.train, optimizer="muon", weight_decay=0.0, clip_norm=math.inf)
    learner = ClassLearner(replace(config, train=train), faces, CLASSES)
    plan = plan_epochs(4, 1)
    learner.learn(plan)  # behind it the classifier is no longer zero, so gradients reach the blocks
    before = {name: one.clone() for name, one in learner.state.model.named_parameters()}
    learner.learn(plan)
    rate = learner.learning_rate(plan.progress(2))
    for name, after in learner.state.model.named_parameters():
        change = (after - before[name]).detach() / rate
        if name.startswith("blocks.") and after.ndim == 2:
            # An orthogonal step, scaled to a mean square of about 0.2 squared (Liu et al. 2025).
            values = torch.linalg.svdvals(change)
            scale = 0.2 * max(change.shape) ** 0.5
            assert values.max() < 1.5 * scale
            assert values.median() > 0.5 * scale
        else:
            assert change.abs().max() <= 2.0
    muon, adamw = learner.state.optimizers
    assert len(muon.state) == 4 * config.model.depth
    assert not set(muon.state) & set(adamw.state)


def test_a_step_of_muon_is_pytorchs_own():
    mine = [torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 8), (8, 24), (16, 16))]
    theirs = [torch.nn.Parameter(one.detach().clone()) for one in mine]
    oracle = torch.optim.Muon(theirs, lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    decay = 0.1
    ours = Muon([{"params": mine, "weight_decay": decay}], torch.bfloat16)
    copies = [torch.nn.Parameter(one.detach().clone()) for one in mine]
    exact = Muon([{"params": copies, "weight_decay": decay}], torch.float32)
    for step in range(4):
        for optimizer in (ours, exact, oracle):
            torch.manual_seed(step)
            (group,) = optimizer.param_groups
            group["lr"] = 0.01 * (step + 1)
            for parameter in group["params"]:
                parameter.grad = torch.randn(parameter.shape)
            optimizer.step()
    for one, other, close in zip(mine, theirs, exact.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(one, other)
        assert not torch.equal(one, close)
        torch.testing.assert_close(one, close, rtol=0.05, atol=0.01)


def test_bfloat16_and_float32_start_alike(calm_config, faces):
    losses = []
    for precision in ("float32", "bfloat16"):
        train = replace(calm_config.train, precision=precision)
        learner = ClassLearner(replace(calm_config, train=train), faces, CLASSES)
        plan = plan_epochs(1, 3)
        # the classifier starts at zero, so every first loss is log 3
        assert learner.learn(plan).item() == pytest.approx(math.log(3))
        losses.append(learner.learn(plan).item())
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert losses[0] != losses[1]


def test_a_device_that_is_not_there_is_named():
    from vitreous.errors import ConfigError

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA, so asking for it is no mistake")
    with pytest.raises(ConfigError, match="'cuda' is not available here: this machine has"):
        choose_device("cuda")
    assert choose_precision("float32", torch.device("cpu")) is torch.float32


HAS_COMPILER = any(map(shutil.which, ("g++", "clang++")))


@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler, which torch.compile needs")
def test_a_compiled_model_learns_the_same(calm_config, faces):
    config, plan = calm_config, plan_epochs(1, 3)
    plain, compiled = (
        ClassLearner(replace(config, train=replace(config.train, compile=how)), faces, CLASSES)
        for how in (False, True)
    )
    for _ in range(3):
        torch.testing.assert_close(compiled.learn(plan), plain.learn(plan), rtol=1e-4, atol=1e-5)
    assert compiled.state.model.state_dict().keys() == plain.state.model.state_dict().keys()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it was compiled


def test_settings_from_a_gpu_train_where_there_is_no_compiler(config, faces, monkeypatch):
    monkeypatch.setattr("vitreous.training.device.shutil.which", lambda name: None)
    train = replace(config.train, compile=True)
    learner = ClassLearner(replace(config, train=train), faces, CLASSES)
    assert not learner.is_compiled
    assert learner.preparing_steps == 0
    assert learner.learn(plan_epochs(1, 3)).isfinite()


def test_layers_learn_slower_towards_the_patches_as_timm_has_it(timm, config, faces):
    """The rates that timm gives the same model, layer by layer."""
    from timm.optim import param_groups_layer_decay

    model = replace(config.model, stem=(), class_token=True, pool="cls", patch_dropout=0.0)
    train = replace(config.train, layer_decay=0.6)
    learner = ClassLearner(replace(config, model=model, train=train), faces, CLASSES)
    plan = plan_epochs(4, 1)
    learner.learn(plan)
    names = {parameter: name for name, parameter in learner.state.model.named_parameters()}
    rate = learner.learning_rate(plan.progress(1))
    mine = {
        names[parameter]: group["lr"] / rate
        for optimizer in learner.state.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3
    )
    their_names = {parameter: name for name, parameter in theirs.named_parameters()}
    wanted = {
        their_names[parameter]: group["lr_scale"]
        for group in param_groups_layer_decay(theirs, layer_decay=0.6)
        for parameter in group["params"]
    }
    assert mine == pytest.approx(wanted)
    assert len(set(wanted.values())) == 4
