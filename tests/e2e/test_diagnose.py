"""`vitreous diagnose`, and what a run says at its end where it is stuck."""

import json
import os
import shlex
import signal

import pytest

import vitreous as package
from benchmarks.stuck_runs import Pictures
from tests.pages.reading import Page
from vitreous.diagnosis import trials
from vitreous.training.learner import Learner

TINY = ("--set", "train.batch_size=16", "--set", "model.depth=1", "--set", "model.embed_dim=32",
        "--set", "model.num_heads=2", "--set", "model.stem=[8,16,32]",
        "--set", "model.stem_blocks=[0,0,0]", "--set", "model.patch_size=[8,8]")  # fmt: skip


@pytest.fixture(scope="module")
def stuck(vitreous, faces, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "stuck"
    rate = ("--set", "train.learning_rate=0.5")
    result = vitreous("train", faces, "--out", path, "--epochs", "4", *TINY, *rate)
    assert result.exit_code == 0, result.stderr
    return path, result.stderr


@pytest.fixture(scope="module")
def learned(vitreous, tmp_path_factory):
    """Told upright faces from others, which is soon learned."""
    place = tmp_path_factory.mktemp("easy")
    table = Pictures(place, 60, 20, 24, seed=4).upright(2)
    result = vitreous("train", table, "--out", place / "run", "--epochs", "15", *TINY)
    assert result.exit_code == 0, result.stderr
    assert "warning: " not in result.stderr
    return place / "run"


def test_a_run_that_learned_is_left_in_peace(vitreous, learned):
    run = learned
    assert json.loads((run / "diagnosis.json").read_text())["causes"] == []
    assert "Why it is stuck" not in (run / "report.html").read_text()
    result = vitreous("diagnose", run, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["causes"] == []
    assert "short trainings" not in result.stderr
    assert "Nothing is named" in vitreous("diagnose", run, "--no-experiments").stdout


def test_a_stuck_run_says_why_at_its_end(stuck):
    run, told = stuck
    warnings = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "The learning rate is too high" in warnings[0]
    assert f"vitreous diagnose {run}" in warnings[0]
    first, *_ = json.loads((run / "diagnosis.json").read_text())["causes"]
    assert first["kind"] == "rate_too_high"
    page = Page((run / "report.html").read_text())
    assert "Why it is stuck" in page.text
    assert "The learning rate is too high" in page.text
    assert first["change"]["train.learning_rate"] < 0.05


def test_experiments_put_the_cause_to_the_test_and_the_command_runs(vitreous, stuck, monkeypatch):
    run, _ = stuck
    monkeypatch.setattr(trials, "_FEWEST_STEPS", 100)  # however slow the machine is
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    result = vitreous("diagnose", run, "--budget", "20s", "--json")
    assert result.exit_code == 0, result.stderr
    assert "short trainings of" in result.stderr
    found = json.loads(result.stdout)
    first, *_ = found["causes"]
    assert first["kind"] == "rate_too_high"
    assert first["tried"].startswith("tried, and it helps")
    assert "short trainings" in found["tried"]
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before
    program, *words = shlex.split(first["command"])
    assert program == "vitreous"
    again = vitreous(*words, "--epochs", "1")
    assert again.exit_code == 0, again.stderr
    shown = vitreous("diagnose", run, "--no-experiments").stdout
    assert "1. The learning rate is too high" in shown
    assert first["command"] in shown


def test_a_loss_that_is_no_number(vitreous, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "_FEWEST_STEPS", 100)
    run = tmp_path / "run"
    words = ("--set", "train.learning_rate=1e30", "--set", "train.clip_norm=1e30")
    result = vitreous("train", faces, "--out", run, "--epochs", "4", *TINY, *words)
    assert result.exit_code == 1
    assert f"vitreous diagnose {run}" in result.stderr
    found = json.loads(vitreous("diagnose", run, "--budget", "10s", "--json").stdout)
    assert [cause["kind"] for cause in found["causes"]] == ["non_finite"]
    assert found["causes"][0]["tried"].startswith("tried, and it helps")
    assert set(found["causes"][0]["change"]) == {
        "train.learning_rate", "train.precision", "train.clip_norm",
    }  # fmt: skip


@pytest.mark.parametrize("stop_at", [3, 12])
def test_a_run_that_was_stopped(vitreous, faces, tmp_path, monkeypatch, stop_at):
    learn, steps, run = Learner.learn, [], tmp_path / "run"

    def stop_once(self, plan):
        loss = learn(self, plan)
        steps.append(self.state.step)
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", stop_once)
        result = vitreous("train", faces, "--out", run, "--epochs", "4", *TINY)
    assert result.exit_code == 130
    diagnosis = package.diagnose(run)
    assert diagnosis.seen.startswith(f"Stopped at step {stop_at} of 60.")
    assert [cause.kind for cause in diagnosis.causes] == ["underfitting"]
    assert diagnosis.causes[0].command == f"vitreous train --resume {run}"


def test_what_has_no_classes_or_is_no_run_is_refused(vitreous, faces, tmp_path):
    result = vitreous("diagnose", tmp_path)
    assert result.exit_code == 2
    assert "is not a run folder" in result.stderr
    run = tmp_path / "pretrained"
    words = ("--epochs", "1", *TINY, "--set", "model.stem=[]", "--set", "model.stem_blocks=[]")
    result = vitreous("pretrain", faces, "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    result = vitreous("diagnose", run)
    assert result.exit_code == 2
    assert "knows no classes" in result.stderr
