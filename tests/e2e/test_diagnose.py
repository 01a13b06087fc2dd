"""`vitreous diagnose`, and what a run says at its end where it is stuck."""

import json
import os
import shlex
import shutil
import signal

import pytest

import vitreous as package
from benchmarks.stuck_runs import Pictures
from tests.pages.reading import Page
from vitreous.core.config import from_mapping, load_toml
from vitreous.core.console import Console
from vitreous.core.files import read_tensors
from vitreous.core.run import RunFolder
from vitreous.diagnosis import trials
from vitreous.inquiry import of_part
from vitreous.opening import open_own_pictures
from vitreous.training.config import RunConfig
from vitreous.training.learner import Learner

TINY = ("--set", "train.batch_size=16", "--set", "model.depth=1", "--set", "model.embed_dim=32",
        "--set", "model.num_heads=2", "--set", "model.stem=[8,16,32]",
        "--set", "model.stem_blocks=[0,0,0]", "--set", "model.patch_size=[8,8]")  # fmt: skip
NO_NUMBER = ("--set", "train.learning_rate=1e30", "--set", "train.clip_norm=1e30")


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


def test_experiments_take_batches_in_the_pieces_that_memory_was_enough_for(
    vitreous, stuck, monkeypatch, tmp_path
):
    run, learner, pieces = tmp_path / "run", trials.ClassLearner, []
    shutil.copytree(stuck[0], run)
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps({**plan, "accumulate": 4}))

    def noted(config, *others):
        pieces.append(config.train.accumulate)
        return learner(config, *others)

    monkeypatch.setattr(trials, "ClassLearner", noted)
    result = vitreous("diagnose", run, "--budget", "1s")
    assert result.exit_code == 0, result.stderr
    assert set(pieces) == {4}


def test_a_run_is_known_by_its_name_from_inside_it(vitreous, stuck, monkeypatch):
    run, _ = stuck
    monkeypatch.chdir(run)
    found = json.loads(vitreous("diagnose", ".", "--no-experiments", "--json").stdout)
    assert found["causes"][0]["command"].endswith(f"--out {run}-2")


def test_a_loss_that_is_no_number(vitreous, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "_FEWEST_STEPS", 100)
    run = tmp_path / "run"
    result = vitreous("train", faces, "--out", run, "--epochs", "4", *TINY, *NO_NUMBER)
    assert result.exit_code == 1
    assert f"vitreous diagnose {run}" in result.stderr
    found = json.loads(vitreous("diagnose", run, "--budget", "10s", "--json").stdout)
    assert [cause["kind"] for cause in found["causes"]] == ["non_finite"]
    assert found["causes"][0]["tried"].startswith("tried, and it helps")
    assert set(found["causes"][0]["change"]) == {
        "train.learning_rate", "train.precision", "train.clip_norm",
    }  # fmt: skip


def test_a_fold_whose_loss_is_no_number(vitreous, faces, tmp_path):
    run = tmp_path / "run"
    result = vitreous(
        "train", faces, "--out", run, "--epochs", "4", *TINY, *NO_NUMBER, "--folds", "3"
    )
    assert result.exit_code == 1
    found = json.loads(vitreous("diagnose", run, "--budget", "5s", "--json").stdout)
    assert found["seen"].startswith("Looked at is its folds/1, which was trained last.")
    assert [cause["kind"] for cause in found["causes"]] == ["non_finite"]


def test_a_fold_that_was_stopped_is_looked_at_with_its_own_pictures(
    vitreous, faces, tmp_path, monkeypatch
):
    learn, begun, run = Learner.learn, [], tmp_path / "run"

    def stop_in_the_fourth(self, plan):
        loss = learn(self, plan)
        begun.extend([self] if self.state.step == 1 else [])
        if len(begun) == 4 and self.state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    words = ("--epochs", "1", "--folds", "2", "--repeats", "2")
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", stop_in_the_fourth)
        assert vitreous("train", faces, "--out", run, *TINY, *words).exit_code == 130
    diagnosis = package.diagnose(run, experiments=False)
    assert diagnosis.seen.startswith("Looked at is its folds/2-2, which was trained last. Stopped")
    assert " on 135 held back" in diagnosis.seen
    assert [cause.kind for cause in diagnosis.causes] == ["underfitting"]
    assert diagnosis.causes[0].command == f"vitreous train --resume {run}"
    config = from_mapping(RunConfig, load_toml(run / "config.toml"))
    dataset = open_own_pictures(RunFolder(run), config, Console(quiet=True))
    for name in ("1", "2", "2-1"):
        answers, _ = read_tensors(run / "folds" / name / "answers.safetensors")
        part, _ = of_part(dataset, config, ("folds", name))
        assert part.sets["test"].rows.tolist() == answers["rows"].tolist()


def test_a_rung_whose_loss_is_no_number(vitreous, faces, stuck, tmp_path):
    run = tmp_path / "run"
    words = ("--set", "ladder.lora_learning_rate=1e30", "--set", "train.clip_norm=1e30",
             "--set", "train.batch_size=16", "--tune", "lora")  # fmt: skip
    result = vitreous("train", faces, "--out", run, "--weights", stuck[0], "--epochs", "4", *words)
    assert result.exit_code == 1
    assert "--set ladder.lora_learning_rate=" in result.stderr
    found = json.loads(vitreous("diagnose", run, "--json").stdout)
    assert found["seen"].startswith("Looked at is its rungs/lora, which was trained last.")
    assert [cause["kind"] for cause in found["causes"]] == ["non_finite"]
    # It went back twice, each time to a quarter.
    assert "at a learning rate of 6.3e+28" in found["causes"][0]["evidence"]
    assert found["causes"][0]["change"]["ladder.lora_learning_rate"] < 6e28
    assert "short trainings" not in found["tried"]


def test_few_pictures_and_pretrained_weights(vitreous, learned, tmp_path):
    """The command that is named learns a head alone."""
    pictures = Pictures(tmp_path, 6, 20, 24, seed=5)
    words = ("--init", learned, "--epochs", "100", "--out", tmp_path / "run")
    result = vitreous("train", pictures.whole(), *words, "--set", "train.batch_size=16")
    assert result.exit_code == 0, result.stderr
    first, *_ = json.loads((tmp_path / "run" / "diagnosis.json").read_text())["causes"]
    assert first["kind"] == "too_little_data"
    assert "learn a new head alone" in first["advice"]
    program, *words = shlex.split(first["command"])
    assert program == "vitreous"
    again = vitreous(*words)
    assert again.exit_code == 0, again.stderr
    ladder = json.loads((tmp_path / "run-2" / "ladder.json").read_text())
    assert ladder["kept"] == "probe"
    assert [row["name"] for row in ladder["rows"]] == ["baseline", "neighbors", "probe"]


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
