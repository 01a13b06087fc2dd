"""A loss that is no number, and too little memory: nothing is lost, and a resume ends the same."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.training.test_learner import weights
from tests.training.test_trainer import CLASSES, run_training
from vitreous.core.memory import is_out_of_memory
from vitreous.data.config import NO_AUGMENTATION
from vitreous.errors import ConfigError, Interrupted, TrainingError
from vitreous.training import guard
from vitreous.training.config import TrainConfig
from vitreous.training.learner import ClassLearner
from vitreous.training.logbook import read_logbook
from vitreous.training.plan import plan_epochs


def copies(learner):
    return [tensor.clone() for tensor in weights(learner)]


def no_pictures(learner):
    """Pictures that are no numbers, which spoil batch norm's statistics too."""
    make = learner.inputs
    learner.inputs = lambda *place: (make(*place)[0] * torch.nan, make(*place)[1])


def no_gradient(learner):
    """A finite loss whose gradient is none: the slope of a square root at 0, times 0."""
    loss = learner.loss

    def with_a_cusp(model, *inputs):
        weight = next(model.parameters())
        return loss(model, *inputs) + (weight - weight.detach()).sum().sqrt()

    learner.loss = with_a_cusp


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "keras_adam"])
@pytest.mark.parametrize("spoil", [no_pictures, no_gradient])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_step_without_a_number_changes_nothing(config, faces, optimizer, spoil, shards):
    train = replace(config.train, optimizer=optimizer, shards=shards)
    learner = ClassLearner(replace(config, train=train), faces, CLASSES)
    plan = plan_epochs(10, 1)
    for _ in range(3):
        assert learner.learn(plan).isfinite()
    before = copies(learner)
    learner._ahead._waiting = None  # made before the fault
    inputs, loss = learner.inputs, learner.loss
    spoil(learner)
    assert learner.learn(plan).isnan()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))
    assert learner.state.step == 4
    learner.inputs, learner.loss, learner._ahead._waiting = inputs, loss, None
    assert learner.learn(plan).isfinite()
    assert not all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))


def test_the_longest_row_goes_on_from_the_one_before():
    nan = float("nan")
    assert guard.longest_row([nan, 0.5, nan, nan], before=2) == (3, 2)
    assert guard.longest_row([0.5], before=4) == (4, 0)
    assert guard.longest_row([], before=1) == (1, 1)


def fails_at_a_rate(monkeypatch, limit: float) -> list[int]:
    """A training that is beyond all numbers at a learning rate above a limit; its steps."""
    loss, steps = ClassLearner.loss, []

    def loss_at_a_rate(self, model, *inputs):
        steps.append(self.state.step)
        (group, *_) = self.state.optimizers[0].param_groups
        return loss(self, model, *inputs) * (torch.nan if group["lr"] > limit else 1.0)

    monkeypatch.setattr(ClassLearner, "loss", loss_at_a_rate)
    return steps


@pytest.fixture
def slow_rise(config):
    """Its rate rises to the end, and passes half its height at step 15."""
    return replace(config, train=replace(config.train, epochs=10.0, warmup=0.99))


def without_time(run):
    return [{**line, "seconds": 0} for line in read_logbook(run.metrics)]


def test_after_several_steps_without_a_number_a_run_goes_back(
    slow_rise, faces, tmp_path, monkeypatch
):
    steps = fails_at_a_rate(monkeypatch, 0.5 * slow_rise.train.learning_rate)
    run = run_training(slow_rise, faces, tmp_path / "run")
    plan = json.loads(run.plan.read_text())
    assert [(one["failed_step"], one["step"]) for one in plan["returns"]] == [(19, 12)]
    assert steps == [*range(19), *range(12, 30)]
    lines = read_logbook(run.metrics)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 31))
    (back,) = [line for line in lines if line["kind"] == "returned"]
    assert (back["step"], back["failed_step"]) == (12, 19)
    rates = {line["step"]: line["learning_rate"] for line in lines if line["kind"] == "train"}
    assert rates[13] == pytest.approx(rates[12] / 4 * 13 / 12)


@pytest.mark.parametrize("stop_at", [13, 17, 19, 25])
def test_a_run_that_goes_back_is_resumed_to_the_same_bits(
    slow_rise, faces, tmp_path, monkeypatch, stop_at
):
    """Stopped before it fails, while it fails, right behind that, and on the new way."""
    steps = fails_at_a_rate(monkeypatch, 0.5 * slow_rise.train.learning_rate)
    straight = run_training(slow_rise, faces, tmp_path / "straight")
    steps.clear()
    learn = ClassLearner.learn

    def stop_once(self, plan):
        loss = learn(self, plan)
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(ClassLearner, "learn", stop_once)
    with pytest.raises(Interrupted):
        run_training(slow_rise, faces, tmp_path / "stopped")
    resumed = run_training(slow_rise, faces, tmp_path / "stopped")
    for name in ("best", "last", "plan"):
        assert getattr(resumed, name).read_bytes() == getattr(straight, name).read_bytes()
    assert without_time(resumed) == without_time(straight)


def test_single_steps_without_a_number_are_logged_and_resumed(config, faces, tmp_path, monkeypatch):
    loss = ClassLearner.loss

    def sometimes(self, model, *inputs):
        return loss(self, model, *inputs) * (torch.nan if self.state.step in (4, 7, 8) else 1.0)

    monkeypatch.setattr(ClassLearner, "loss", sometimes)
    run = run_training(config, faces, tmp_path / "run")
    lines = read_logbook(run.metrics)
    assert [line["step"] for line in lines if line["kind"] == "skipped"] == [5, 8, 9]
    trained = [line["step"] for line in lines if line["kind"] == "train"]
    assert trained == [step for step in range(1, 16) if step not in (5, 8, 9)]
    assert not json.loads(run.plan.read_text())["returns"]


def test_a_run_that_fails_again_stops_with_the_evidence(slow_rise, faces, tmp_path, monkeypatch):
    fails_at_a_rate(monkeypatch, 0.01 * slow_rise.train.learning_rate)
    with pytest.raises(TrainingError, match=r"not a number in 5 steps in a row.*back to 0.*--set"):
        run_training(slow_rise, faces, tmp_path / "run")
    lines = read_logbook(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["kind"] == "stopped"
    assert len([line for line in lines if line["kind"] == "returned"]) == guard.MOST_RETURNS


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("shards", [1, 2])
def test_pieces_added_up_are_the_whole_batch(calm_config, faces, optimizer, shards):
    """Without batch norm, whose statistics are of a piece."""
    model = replace(calm_config.model, stem=(), patch_size=(8, 8))
    train = replace(calm_config.train, optimizer=optimizer, shards=shards)
    config = replace(calm_config, model=model, train=train, augment=NO_AUGMENTATION)
    pieces = replace(config, train=replace(train, accumulate=5))  # of 12: uneven ones
    whole, cut = (ClassLearner(one, faces, CLASSES) for one in (config, pieces))
    plan = plan_epochs(10, 1)
    for _ in range(4):
        torch.testing.assert_close(cut.learn(plan), whole.learn(plan), rtol=1e-5, atol=1e-6)
    cut.state.model.load_state_dict(whole.state.model.state_dict())
    for learner in (whole, cut):
        learner.shards.backward(learner.loss, learner.inputs(4, 0.4), seed=0)
    pairs = zip(whole.state.model.parameters(), cut.state.model.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
    grads = [[one.grad for one in learner.state.model.parameters()] for learner in (whole, cut)]
    assert not all(map(torch.equal, *grads))  # else nothing was cut


class NotEnough:
    """Stands for a device: more pictures than fit raise what PyTorch raises."""

    def __init__(self, monkeypatch, most: int, error: Exception) -> None:
        self.seen, loss = [], ClassLearner.loss

        def limited(learner, model, *inputs):
            self.seen.append(len(inputs[0]))
            if len(inputs[0]) > most:
                raise error
            return loss(learner, model, *inputs)

        monkeypatch.setattr(ClassLearner, "loss", limited)


ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
)


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_too_little_memory_goes_on_in_smaller_pieces(
    config, faces, tmp_path, monkeypatch, error, capsys
):
    pieces = replace(config, train=replace(config.train, accumulate=4))
    straight = run_training(pieces, faces, tmp_path / "straight")
    device = NotEnough(monkeypatch, 4, error)
    run = run_training(config, faces, tmp_path / "run")
    assert device.seen[:6] == [12, 6, 3, 3, 3, 3]
    assert "going on with 3 at a time, 4 times a step" in " ".join(capsys.readouterr().err.split())
    assert json.loads(run.plan.read_text())["accumulate"] == 4
    assert run.last.read_bytes() == straight.last.read_bytes()
    monkeypatch.undo()
    assert without_time(run) == without_time(straight)


def test_memory_too_small_for_one_picture_is_said(config, faces, tmp_path, monkeypatch):
    NotEnough(monkeypatch, 0, ERRORS[0])
    with pytest.raises(TrainingError, match=r"too small for 1 of these.*--image-size"):
        run_training(config, faces, tmp_path / "run")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_libraries_of_a_gpu_say_it_in_their_own_words(said):
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError(said.replace("ALLOC", "EXECUTION")))


def test_too_little_memory_is_known_behind_what_came_of_it():
    def fail() -> None:
        try:
            raise ERRORS[0]
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert is_out_of_memory(caught.value)


def test_another_error_is_not_taken_for_memory(config, faces, tmp_path, monkeypatch):
    NotEnough(monkeypatch, 0, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_training(config, faces, tmp_path / "run")


REAL = """
import resource, torch
from vitreous.core.memory import is_out_of_memory
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000, size + 200_000_000))
try:
    torch.ones(1_000_000_000)
except Exception as error:
    print(is_out_of_memory(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process' memory so")
def test_pytorchs_own_words_for_too_little_memory_are_known():
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_more_pieces_than_pictures_are_refused():
    with pytest.raises(ConfigError, match=r"train\.accumulate is 9: it is 1 to"):
        TrainConfig(batch_size=16, shards=2, accumulate=9)
