"""`vitreous train --folds`: the same training several times, scored on what it never saw."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from vitreous import api
from vitreous.core.files import read_json, read_tensors
from vitreous.data.config import DataConfig
from vitreous.data.faces import write_faces
from vitreous.data.preprocess import Preprocess
from vitreous.evaluation.intervals import proportion_interval
from vitreous.evaluation.results import Fold, FoldScores
from vitreous.folds import share_of_time
from vitreous.model.config import ModelConfig
from vitreous.training.config import FoldsConfig, RunConfig, TrainConfig
from vitreous.training.learner import Learner
from vitreous.training.trainer import Clock

from .conftest import QUICK

#: What stands in a budget behind all trainings, and behind each, in seconds.
BEHIND_ALL_S, BEHIND_EACH_S = 120.0, 3.0

WORDS = (*QUICK, "--epochs", "2", "--folds", "3")


def test_all_trainings_of_folds_have_the_same_time():
    """What comes behind the last one is left time for by all, not by that one alone."""
    config = RunConfig(
        "scratch",
        DataConfig("faces"),
        ModelConfig(num_classes=3),
        Preprocess((224, 224)),
        train=TrainConfig(budget_s=1200.0),
        folds=FoldsConfig(count=5),
    )
    begun, spent, learned, scores = time.monotonic(), 0.0, [], FoldScores()
    for number in range(6):
        own, clock = share_of_time(config, Clock(begun - spent), scores)
        learned.append(own.train.budget_s - BEHIND_EACH_S - clock.share * BEHIND_ALL_S)
        spent += learned[-1] + BEHIND_EACH_S
        scores = replace(scores, folds=(*scores.folds, Fold(str(number), 9, 1, 1, 0, 0)))
    assert learned == pytest.approx([learned[0]] * 6, abs=1)
    assert spent + BEHIND_ALL_S == pytest.approx(1200, abs=1)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few") / "faces"
    write_faces(folder, 20, size=32, seed=3)
    return folder


@pytest.fixture(scope="module")
def folded(vitreous, few, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "folded"
    result = vitreous("train", few, "--out", path, *WORDS, "--repeats", "2")
    assert result.exit_code == 0, result.stderr
    return path, result.stderr


def test_the_folds_say_how_good_such_a_training_is(folded, few):
    run, told = folded
    scores = read_json(run / "folds.json")
    assert [fold["name"] for fold in scores["folds"]] == ["1", "2", "3", "2-1", "2-2", "2-3"]
    assert sum(fold["n"] for fold in scores["folds"]) == 120
    assert scores["n"] == 60
    answers, metadata = read_tensors(run / "folds.safetensors")
    assert metadata["classes"] == ["angry", "happy", "sad"]
    assert answers["probabilities"].shape == (2, 60, 3)
    assert answers["rows"].tolist() == list(range(60))
    paths = [line.split(",") for line in (run / "split.csv").read_text().splitlines()[1:]]
    for row, label in zip(answers["rows"], answers["labels"], strict=True):
        assert paths[row][1] == metadata["classes"][label]
    right = (answers["probabilities"].argmax(2) == answers["labels"]).double().mean(0)
    whole = proportion_interval(round(right.sum().item()), 60)
    assert scores["accuracy"]["interval"] == pytest.approx(vars(whole))
    each = [fold["accuracy"] for fold in scores["folds"]]
    assert scores["accuracy"]["mean"] == pytest.approx(np.mean(each))
    assert scores["accuracy"]["std"] == pytest.approx(np.std(each, ddof=1))
    assert read_json(run / "evaluation.json")["folds"] == scores
    assert "6 folds, 60 pictures, each answered by a model that never saw it" in told
    # No test pictures: the last line says what the score is on.
    assert "these pictures also chose the weights" in told
    assert read_json(run / "evaluation.json")["chose_weights"] is True
    page = (run / "report.html").read_text()
    assert "Cross-validation" in page
    assert ">2-3</th>" in page


def test_each_picture_is_answered_by_the_model_that_it_was_held_out_of(vitreous, folded, few):
    run, _ = folded
    part, _ = read_tensors(run / "folds" / "2" / "answers.safetensors")
    found = json.loads(vitreous("predict", run / "folds" / "2", few, "--json").stdout)
    for row, chances in zip(part["rows"], part["probabilities"], strict=True):
        wanted = list(found[row]["probabilities"].values())
        np.testing.assert_allclose(chances, wanted, atol=1e-5)
    whole, _ = read_tensors(run / "folds.safetensors")
    assert (whole["probabilities"][0, part["rows"]] == part["probabilities"]).all()


def test_a_model_is_kept_that_is_any_runs(vitreous, folded, few, tmp_path):
    """The same as without folds, to the bit."""
    run, _ = folded
    plain = tmp_path / "plain"
    words = WORDS[: WORDS.index("--folds")]
    assert vitreous("train", few, "--out", plain, *words).exit_code == 0
    for name in ("best", "calibration"):
        first, second = (path / f"{name}.safetensors" for path in (run, plain))
        assert first.read_bytes() == second.read_bytes()
    assert vitreous("predict", run, few, "--sets", "0.8").exit_code == 0


@pytest.mark.parametrize("stop_at", [3, 11])
def test_a_stopped_one_goes_on_to_the_same_bits(
    vitreous, few, folded, tmp_path, monkeypatch, stop_at
):
    """In the first fold, or in the third; each has 4 steps."""
    learn, steps = Learner.learn, []

    def stop_once(self, plan):
        loss = learn(self, plan)
        steps.append(self.state.step)
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Learner, "learn", stop_once)
    run = tmp_path / "stopped"
    result = vitreous("train", few, "--out", run, *WORDS)
    assert result.exit_code == 130, result.stderr
    assert f"--resume {run}\n" in result.stderr
    done = len(read_json(run / "folds.json")["folds"]) if (run / "folds.json").exists() else 0
    assert done == {3: 0, 11: 2}[stop_at]
    assert vitreous("train", "--resume", run).exit_code == 0
    straight, _ = folded
    for name in ("1", "2", "3"):
        first, second = (path / "folds" / name / "best.safetensors" for path in (run, straight))
        assert first.read_bytes() == second.read_bytes()
    assert (run / "best.safetensors").read_bytes() == (straight / "best.safetensors").read_bytes()
    # They are many times the model, and no finished fold goes on.
    assert not list((run / "folds" / "1" / "checkpoints").iterdir())


def test_a_budget_is_divided_among_all(vitreous, few, tmp_path, monkeypatch):
    import time

    from vitreous import options

    monkeypatch.setattr(options, "STARTED", time.monotonic())
    run = tmp_path / "run"
    words = [*QUICK, "--folds", "2", "--budget", "18s"]
    del words[words.index("--epochs") : words.index("--epochs") + 2]
    result = vitreous("train", few, "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    plans = [read_json(path / "plan.json") for path in (*(run / "folds").iterdir(), run)]
    assert len(plans) == 3
    first = read_json(run / "folds" / "1" / "plan.json")
    steps = first["stretches"][0]["total_steps"]
    planned = steps * (first["step_s"] + first["evaluation_s"] / first["evaluate_every"])
    # By whatever a step was measured to take; one is the fewest.
    assert planned < 18 / 3 or steps == 1
    assert all(plan["step_s"] for plan in plans)


def test_of_folds_only_what_is_named_is_changed(few, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(api, "begin", lambda default, out, choice, *others: begun.append(choice))
    file = tmp_path / "c.toml"
    file.write_text("[train]\nepochs = 1\n[folds]\ncount = 5\nrepeats = 4\n")
    api.train(few, config=file, folds=3)
    api.train(few, config=file, repeats=2)
    api.train(few, epochs=1, folds=3, settings={"folds": {"repeats": 2}})
    api.train(few, epochs=1, repeats=2, settings={"folds": {"count": 4}})
    folds = [(one.config.folds.count, one.config.folds.repeats) for one in begun]
    assert folds == [(3, 4), (5, 2), (3, 2), (4, 2)]


def test_an_audits_folds_are_five_unless_others_are_named(few, monkeypatch):
    begun = []

    def begin(default, out, choice, *others):
        begun.append((choice.config.folds.count, choice.config.folds.repeats))
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "begin", begin)
    for words in ({}, {"folds": 3}, {"settings": {"folds": {"count": 10, "repeats": 2}}}):
        with pytest.raises(KeyboardInterrupt):
            api.audit(few, epochs=1, **words)
    assert begun == [(5, 1), (3, 1), (10, 2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--repeats", "2"), "repeats is about folds"),
        (("--folds", "21"), "has 20 pictures that can be told apart or groups, too few for 21"),
        (("--folds", "1"), "--folds"),
    ],
)
def test_folds_that_can_not_be(vitreous, few, tmp_path, words, said):
    result = vitreous("train", few, "--out", tmp_path / "run", "--epochs", "1", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "run").exists()
