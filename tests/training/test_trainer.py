import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
import weakref
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest

from vitreous.core.config import dump_toml
from vitreous.core.console import Console
from vitreous.core.run import RunFolder
from vitreous.errors import ConfigError, Interrupted, StorageError, TrainingError
from vitreous.training import diary, trainer
from vitreous.training.checkpoint import KEPT
from vitreous.training.classifier import load_classifier
from vitreous.training.learner import ClassLearner
from vitreous.training.logbook import Logbook, read_logbook
from vitreous.training.plan import Best
from vitreous.training.trainer import Clock, ValidScore

CLASSES = ("angry", "happy", "sad")


class Scores:
    """Validation scores in a given order, the last one for ever."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.calls = list(scores), 0

    def __call__(self, model):
        self.calls += 1
        score = self.scores[min(self.calls - 1, len(self.scores) - 1)]
        return ValidScore(accuracy=score, balanced_accuracy=score, loss=1 - score)


def run_training(config, faces, path, validate=None, started=None, tensorboard=False):
    if path.exists():
        run = RunFolder.open(path)
    else:
        run = RunFolder.create(path, {"config.toml": dump_toml(config)})
    clock = Clock(time.monotonic() if started is None else started, 0.0, 0.0)
    validate = validate or Scores(0.5)
    console = Console(quiet=True)
    learner = partial(ClassLearner, classes=CLASSES)
    trainer.train(
        config, faces, learner, validate, run, trainer.Sitting(console, clock, tensorboard)
    )
    return run


def test_a_run_leaves_what_it_promises(config, faces, tmp_path):
    run = run_training(config, faces, tmp_path / "run", Scores(0.2, 0.9, 0.5))
    lines = read_logbook(run.metrics)
    valid = [line for line in lines if line["kind"] == "valid"]
    assert [line["step"] for line in valid] == [3, 6, 9, 12, 15]
    assert [line["best"] for line in valid] == [True, True, False, False, False]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 16))
    assert load_classifier(run.best).classes == CLASSES
    assert run.best.read_bytes() != run.last.read_bytes()
    assert len(list(run.checkpoints.iterdir())) == KEPT + 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_of_one_seed_are_the_same_file(config, faces, tmp_path, precision):
    config = replace(config, train=replace(config.train, precision=precision))
    first, second = (run_training(config, faces, tmp_path / name) for name in "ab")
    assert first.last.read_bytes() == second.last.read_bytes()
    without_time = [
        [{**line, "seconds": 0} for line in read_logbook(run.metrics)] for run in (first, second)
    ]
    assert without_time[0] == without_time[1]


@pytest.mark.parametrize(
    ("stop_at", "lines"), [(2, 500), (3, 500), (7, 500), (7, 5), (8, 2), (15, 500)]
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    config, faces, tmp_path, monkeypatch, stop_at, lines
):
    monkeypatch.setattr(diary, "LINES_PER_RUN", lines)
    straight = run_training(config, faces, tmp_path / "straight")
    learn, steps = trainer.Learner.learn, []

    def stop_once(self, plan):
        loss = learn(self, plan)
        steps.append(self.state.step)
        if steps == list(range(1, stop_at + 1)):
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(trainer.Learner, "learn", stop_once)
    with pytest.raises(Interrupted, match=rf"stopped at step {stop_at} of 15.*--resume"):
        run_training(config, faces, tmp_path / "stopped")
    resumed = run_training(config, faces, tmp_path / "stopped")
    assert steps == list(range(1, 16))
    assert resumed.last.read_bytes() == straight.last.read_bytes()
    assert resumed.best.read_bytes() == straight.best.read_bytes()
    pairs = zip(read_logbook(resumed.metrics), read_logbook(straight.metrics), strict=True)
    assert all({**a, "seconds": 0} == {**b, "seconds": 0} for a, b in pairs)


def test_ctrl_c_during_the_last_save_ends_what_would_come_next(
    config, faces, tmp_path, monkeypatch
):
    save, asked = diary.Diary.save, []

    def save_and_stop(self, plan, at_once):
        save(self, plan, at_once=at_once)
        if at_once and not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(diary.Diary, "save", save_and_stop)
    with pytest.raises(Interrupted, match=r"stopped at step 15 of 15.*--resume"):
        run_training(config, faces, tmp_path / "run")
    run = run_training(config, faces, tmp_path / "run")
    assert len([line for line in read_logbook(run.metrics) if line["kind"] == "train"]) == 15


def test_a_handler_that_python_does_not_know_is_left_alone(config, faces, tmp_path, monkeypatch):
    """Of a program that Python is embedded in: Python says `None`, and can't set that again."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    assert run_training(config, faces, tmp_path / "run").last.exists()


def test_a_training_has_no_learner_of_the_one_before_beside_it(config, faces, tmp_path):
    """Which on a GPU keeps the memory that this one was planned with."""
    learners, alive = [], []

    def make_learner(config, pictures):
        alive.append(sum(one() is not None for one in learners))
        learner = ClassLearner(config, pictures, CLASSES)
        learners.append(weakref.ref(learner))
        return learner

    gc.disable()
    try:
        for name in "ab":
            run = RunFolder.create(tmp_path / name, {"config.toml": dump_toml(config)})
            sitting = trainer.Sitting(Console(quiet=True), Clock(time.monotonic(), 0.0, 0.0))
            trainer.train(config, faces, make_learner, Scores(0.5), run, sitting)
    finally:
        gc.enable()
    assert alive == [0, 0]


def test_a_missing_tensorboard_is_told_before_there_is_work_to_lose(monkeypatch):
    monkeypatch.setattr(trainer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'vitreous\[tensorboard\]'"):
        trainer.Sitting(Console(quiet=True), Clock(0.0), tensorboard=True)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(config, faces, tmp_path, monkeypatch):
    straight = run_training(config, faces, tmp_path / "straight")
    learn = trainer.Learner.learn

    def die(self, plan):
        if self.state.step == 4:
            raise ZeroDivisionError
        return learn(self, plan)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Learner, "learn", die)
        with pytest.raises(ZeroDivisionError):
            run_training(config, faces, tmp_path / "killed")
    assert read_logbook(tmp_path / "killed" / "metrics.jsonl")
    resumed = run_training(config, faces, tmp_path / "killed")
    assert resumed.last.read_bytes() == straight.last.read_bytes()
    assert len(read_logbook(resumed.metrics)) == len(read_logbook(straight.metrics))


@pytest.fixture
def slowing(monkeypatch) -> list[float]:
    """A clock that only learning moves: a step takes four times as long from the 20th on."""
    learn, now = trainer.Learner.learn, [0.0]

    def slow(self, plan):
        now[0] += 0.01 if self.state.step < 20 else 0.04
        return learn(self, plan)

    monkeypatch.setattr(trainer.Learner, "learn", slow)
    for clock in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: now[0])
    return now


def test_a_budget_is_kept_when_the_machine_slows_down(config, faces, tmp_path, slowing):
    train = replace(config.train, budget_s=6.0, epochs=1e6)
    run = run_training(replace(config, train=train), faces, tmp_path / "run", started=0.0)
    plan = json.loads(run.plan.read_text())
    assert len(plan["stretches"]) > 1
    assert plan["stretches"][-1]["total_steps"] < plan["stretches"][0]["total_steps"]
    last = read_logbook(run.metrics)[-1]
    assert last["step"] == plan["stretches"][-1]["total_steps"]
    assert slowing[0] <= 6.3


def test_a_budget_is_not_planned_by_steps_that_compile(config, faces, tmp_path, monkeypatch):
    begin, learn, now = trainer.Learner.__init__, trainer.Learner.learn, [0.0]

    def begin_with_two(self, *args, **options):
        begin(self, *args, **options)
        self.preparing_steps = 2

    def compile_first(self, plan):
        now[0] += 6.0 if self.state.step < 2 else 0.1
        return learn(self, plan)

    monkeypatch.setattr(trainer.Learner, "__init__", begin_with_two)
    monkeypatch.setattr(trainer.Learner, "learn", compile_first)
    for clock in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: now[0])
    train = replace(config.train, budget_s=30.0, epochs=1e6)
    run = run_training(replace(config, train=train), faces, tmp_path / "run", started=0.0)
    # 12 seconds go by before the pace is measured, and again when training begins.
    assert 47 <= read_logbook(run.metrics)[-1]["step"] <= 50
    assert now[0] <= 30.1


def test_a_run_whose_plan_changed_goes_on_to_the_same_bits(
    config, faces, tmp_path, slowing, monkeypatch
):
    """From before the change, too, of which it then knows all along."""
    config = replace(config, train=replace(config.train, budget_s=6.0, epochs=1e6, ema=0.01))
    monkeypatch.setattr(diary, "LINES_PER_RUN", 50)
    scores = (0.1, 0.2, 0.3, 0.4, 0.1)  # the best weights are those of the 20th step
    # One more is asked for where the pace is measured.
    asked = Scores(0.0, *scores)
    straight = run_training(config, faces, tmp_path / "straight", asked, started=0.0)
    assert len(json.loads(straight.plan.read_text())["stretches"]) > 1
    learn, killed = trainer.Learner.learn, RunFolder(tmp_path / "killed")

    def die(self, plan):
        if killed.plan.exists():
            raise ZeroDivisionError
        return learn(self, plan)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Learner, "learn", die)
        with pytest.raises(ZeroDivisionError):
            run_training(config, faces, killed.path)
    shutil.copy(straight.plan, killed.plan)
    resumed = run_training(config, faces, killed.path, Scores(*scores))
    assert resumed.best.read_bytes() == straight.best.read_bytes()
    assert resumed.last.read_bytes() == straight.last.read_bytes()
    pairs = zip(read_logbook(resumed.metrics), read_logbook(straight.metrics), strict=True)
    assert all({**a, "seconds": 0} == {**b, "seconds": 0} for a, b in pairs)


def test_a_loss_that_is_no_number_ends_with_advice(config, faces, tmp_path):
    train = replace(config.train, learning_rate=1e30, clip_norm=1e30, warmup=0.0)
    with pytest.raises(TrainingError, match=r"not a number.*--set train.learning_rate"):
        run_training(replace(config, train=train), faces, tmp_path / "run")


def test_tensorboard_gets_the_same_numbers(config, faces, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_training(config, faces, tmp_path / "run", Scores(0.2, 0.9), tensorboard=True)
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    valid = [line for line in read_logbook(run.metrics) if line["kind"] == "valid"]
    found = [(event.step, event.value) for event in board.Scalars("valid/balanced_accuracy")]
    expected = [(line["step"], pytest.approx(line["balanced_accuracy"])) for line in valid]
    assert found == expected


def test_training_works_outside_the_main_thread(config, faces, tmp_path):
    worker = threading.Thread(target=run_training, args=(config, faces, tmp_path / "run"))
    worker.start()
    worker.join()
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_training_leaves_the_callers_random_numbers_alone(config, faces, tmp_path):
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run_training(config, faces, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_the_best_has_the_higher_balanced_accuracy_then_the_lower_loss():
    assert Best(1, 0.5, 9.0).beats(None)
    assert Best(2, 0.6, 9.0).beats(Best(1, 0.5, 1.0))
    assert Best(2, 0.5, 0.9).beats(Best(1, 0.5, 1.0))
    assert not Best(2, 0.5, 1.0).beats(Best(1, 0.5, 1.0))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_log_that_the_disk_has_no_room_for_is_told_like_any_other_file(tmp_path):
    import resource

    book, before = Logbook(tmp_path / "m.jsonl", 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(StorageError, match=r"m\.jsonl"), closing(book):
            book.write({"kind": "train", "loss": [0.123456789] * 20})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_logbook_drops_what_lies_behind_its_checkpoint(tmp_path):
    book = Logbook(tmp_path / "m.jsonl", 0)
    book.write({"kind": "train", "step": 1})
    kept = book.size
    book.write({"kind": "train", "step": 2})
    book.close()
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"kind": "tr')  # a line cut short by a crash
    assert [line["step"] for line in read_logbook(tmp_path / "m.jsonl")] == [1, 2]
    book = Logbook(tmp_path / "m.jsonl", kept)
    book.write({"kind": "train", "step": 3})
    book.close()
    assert [line["step"] for line in read_logbook(tmp_path / "m.jsonl")] == [1, 3]
