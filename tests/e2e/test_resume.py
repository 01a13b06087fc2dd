"""`--resume`: what is said, what is refused, and what may be gone by then."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from vitreous import folds
from vitreous.core.files import read_json
from vitreous.core.run import RunFolder
from vitreous.data.faces import write_faces
from vitreous.training.learner import Learner

TINY = ("--epochs", "2", "--set", "train.batch_size=8", "--set", "model.depth=1",
        "--set", "model.embed_dim=16", "--set", "model.num_heads=1",
        "--set", "model.stem=[8,8,8]")  # fmt: skip


@pytest.fixture
def pictures(tmp_path) -> Path:
    write_faces(tmp_path / "faces", 8, size=32)
    return tmp_path / "faces"


def stop_at(monkeypatch, step: int, do=lambda: os.kill(os.getpid(), signal.SIGINT)) -> None:
    learn, taken = Learner.learn, []

    def learn_and_stop(self, plan):
        loss = learn(self, plan)
        taken.append(self.state.step)
        if len(taken) == step:
            do()
        return loss

    monkeypatch.setattr(Learner, "learn", learn_and_stop)


@pytest.fixture
def stopped(vitreous, pictures, tmp_path, monkeypatch) -> Path:
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        assert vitreous("train", pictures, "--out", tmp_path / "run", *TINY).exit_code == 130
    return tmp_path / "run"


def test_another_version_is_told_first_and_written_down(vitreous, stopped):
    path = stopped / "provenance.json"
    known = json.loads(path.read_text())
    known["versions"]["torch"] = "1.0"
    known["code"] = "other"
    known["processor"] = "abacus"
    path.write_text(json.dumps(known))
    result = vitreous("train", "--resume", stopped)
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stderr.split())
    warning = told.index("not to the same bits")
    assert warning < told.index("going on at step")
    for words in ("torch was 1.0", "own code has changed", "the processor was 'abacus'"):
        assert words in told
    after = read_json(path)
    assert after["versions"]["torch"] == "1.0"
    assert len(after["later"]) == 1
    assert after["later"][0]["versions"]["torch"] != "1.0"
    assert after["peak_memory_bytes"] > 0


@pytest.mark.parametrize("other", ["[]", "{}", '{"versions": 3}', '{"later": [1]}'])
@pytest.mark.parametrize("name", ["provenance.json", "findings.json"])
def test_a_record_that_holds_something_else_is_named(vitreous, stopped, name, other):
    path = stopped / name
    assert path.exists()
    path.write_text(other)
    result = vitreous("train", "--resume", stopped)
    assert result.exit_code == 2, result.output
    assert f"{path} is damaged or from another version" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_nothing_is_told_where_nothing_has_changed(vitreous, stopped, tmp_path):
    other = tmp_path / "elsewhere"  # where its pictures were decoded to says nothing about a run
    result = vitreous("train", "--resume", stopped, "--cache", other)
    assert result.exit_code == 0, result.stderr
    assert any(other.iterdir())
    assert "not to the same bits" not in result.stderr
    assert "later" not in read_json(stopped / "provenance.json")


def test_a_finished_run_says_so_and_nothing_in_it_is_touched(vitreous, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with RunFolder.open(run).locked():  # not even its lock is asked for
        before |= {run / ".lock": (run / ".lock").stat().st_mtime_ns}
        result = vitreous("train", "--resume", run)
    assert result.exit_code == 0, result.stderr
    assert "is finished, nothing to do" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in before if path.exists()} == before


def test_pictures_may_disappear_while_a_run_is_at_work(vitreous, pictures, tmp_path, monkeypatch):
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert vitreous("train", pictures, "--out", straight, *TINY).exit_code == 0
    stop_at(monkeypatch, 2, lambda: pictures.rename(tmp_path / "moved"))
    result = vitreous("train", pictures, "--out", run, *TINY)
    assert result.exit_code == 0, result.stderr
    for name in ("best.safetensors", "last.safetensors"):
        assert (run / name).read_bytes() == (straight / name).read_bytes()
    assert (run / "report.html").exists()
    # What has to look for them says so, in one line.
    (run / "report.html").unlink()
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 2
    assert str(pictures) in result.stderr


def test_pictures_that_changed_are_told_before_going_on(vitreous, stopped, pictures):
    shutil.copy(pictures / "happy" / "00000.png", pictures / "sad" / "00000.png")
    result = vitreous("train", "--resume", stopped)
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "are not those that" in said
    assert "(some have changed, or their labels)" in said


def test_pictures_that_moved_are_found_where_the_settings_say(
    vitreous, stopped, pictures, tmp_path
):
    straight, config = tmp_path / "straight", stopped / "config.toml"
    assert vitreous("train", pictures, "--out", straight, *TINY).exit_code == 0
    moved = pictures.rename(tmp_path / "moved")
    result = vitreous("train", "--resume", stopped)
    assert result.exit_code == 2
    assert f"write their place into data.source in {config}" in " ".join(result.stderr.split())
    config.write_text(config.read_text().replace(str(pictures), str(moved)))
    result = vitreous("train", "--resume", stopped)
    assert result.exit_code == 0, result.stderr
    for name in ("best.safetensors", "last.safetensors"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes()


def test_pictures_that_came_since_are_left_out(vitreous, stopped, pictures, tmp_path):
    straight = tmp_path / "straight"
    assert vitreous("train", pictures, "--out", straight, *TINY).exit_code == 0
    shutil.copy(pictures / "happy" / "00000.png", pictures / "angry" / "another.png")
    shutil.copytree(pictures / "happy", pictures / "bored")
    told = f"9 of the pictures in {pictures} came after {stopped} began: left out"
    result = vitreous("train", "--resume", stopped)
    assert result.exit_code == 0, result.stderr
    assert told in " ".join(result.stderr.split())
    for name in ("best.safetensors", "last.safetensors"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes()
    found = vitreous("evaluate", stopped, "--json")
    assert found.exit_code == 0, found.stderr
    assert told in " ".join(found.stderr.split())
    now, then = json.loads(found.stdout), json.loads((straight / "evaluation.json").read_text())
    for name in ("n", "accuracy", "balanced_accuracy", "loss", "classes", "confusion"):
        assert now[name] == then[name]
    # One of its own gone as well is another matter, and both are named.
    (pictures / "happy" / "00001.png").unlink()
    result = vitreous("evaluate", stopped)
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert f"9 new, such as {pictures / 'angry' / 'another.png'}; 1 gone, such as" in said


def test_a_fold_is_not_forgotten_before_it_is_written_down(
    vitreous, pictures, tmp_path, monkeypatch
):
    """Killed right there, it still has what it takes to go on."""
    run, write = tmp_path / "run", folds.write_json

    def die(path, value):
        if path.name == "folds.json":
            raise KeyboardInterrupt
        write(path, value)

    words = ("train", pictures, "--out", run, *TINY, "--folds", "2")
    with monkeypatch.context() as patch:
        patch.setattr(folds, "write_json", die)
        assert vitreous(*words).exit_code == 130
    fold = RunFolder.open(run).fold("1")
    assert any(fold.checkpoints.iterdir())
    log = fold.metrics.read_bytes()
    assert vitreous("train", "--resume", run).exit_code == 0
    assert fold.metrics.read_bytes() == log  # not trained again
    assert not list(fold.checkpoints.iterdir())  # of no use to a fold that is scored
