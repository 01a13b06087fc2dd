"""`vitreous train --weights`: from a pretrained model to the simplest way to use it."""

import json
import math
import os
import shutil
import signal
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import balanced_accuracy_score

from vitreous import options, supervised
from vitreous.core.files import read_json, read_tensors, write_tensors
from vitreous.ladder import climb
from vitreous.recipes import finetune
from vitreous.training.learner import Learner

QUICK = ("--image-size", "32", "--set", "train.batch_size=16")
#: The first step of the low-rank updates makes infinite weights.
DIVERGES = ("--set", "ladder.lora_learning_rate=1e38")


@pytest.fixture
def now(monkeypatch):
    """A budget counts from the start of the process, which was long ago."""
    monkeypatch.setattr(options, "STARTED", time.monotonic())


@pytest.fixture(scope="module")
def checkpoint(run) -> Path:
    """Pretrained on the very faces, so that its features are worth something."""
    return run / "best.safetensors"


@pytest.fixture(scope="module")
def climbed(vitreous, checkpoint, faces, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "climbed"
    words = ("--weights", checkpoint, *QUICK, "--epochs", "3", "--explain-choice")
    result = vitreous("train", faces, "--out", path, *words)
    assert result.exit_code == 0, result.stderr
    return path, result.stderr


def test_every_rung_is_climbed_scored_and_shown(climbed):
    run, told = climbed
    ladder = read_json(run / "ladder.json")
    assert [row["name"] for row in ladder["rows"]] == [
        "baseline", "neighbors", "probe", "lora", "full",
    ]  # fmt: skip
    for row in ladder["rows"]:
        assert row["what"] in told
    scores = {row["name"]: row["balanced_accuracy"]["value"] for row in ladder["rows"]}
    assert scores["baseline"] == pytest.approx(1 / 3)
    assert scores["probe"] > 0.5
    assert f"kept: {ladder['kept']}, the simplest within one standard error" in told
    steps_per_epoch = 240 / 16
    lora, full = (read_json(run / "rungs" / name / "plan.json") for name in ("lora", "full"))
    assert lora["stretches"][-1]["total_steps"] == round(0.25 * 3 * steps_per_epoch)
    assert full["stretches"][-1]["total_steps"] == 3 * steps_per_epoch
    page = (run / "report.html").read_text()
    assert "The ladder" in page
    assert "updates of rank 8" in page


def test_the_runs_weights_are_those_of_the_rung_kept(climbed, vitreous, faces):
    run, _ = climbed
    kept = run / "rungs" / read_json(run / "ladder.json")["kept"]
    mine, theirs = (read_tensors(path / "best.safetensors") for path in (run, kept))
    # Each rung was left with the weights to use, before rungs were compared.
    for rung in ("lora", "full"):
        weights = read_json(run / "rungs" / rung / "kept.json")["weights"]
        of_last, best = (
            (run / "rungs" / rung / f"{name}.safetensors").read_bytes() for name in ("last", "best")
        )
        assert weights == "best" or of_last == best
    # But for the head, divided by the temperature.
    temperature = mine[1].pop("temperature")
    assert mine[1] == theirs[1]
    for name, tensor in theirs[0].items():
        divided = tensor / temperature if name.startswith("head.") else tensor
        assert torch.equal(mine[0][name], divided), name
    again = json.loads(vitreous("evaluate", run, "--json").stdout)
    stated = read_json(run / "evaluation.json")
    assert again["accuracy"] == stated["accuracy"]
    result = vitreous("evaluate", run / "rungs" / "lora", faces, "--split", "valid", "--json")
    assert json.loads(result.stdout)["n"] == 30
    assert "has learned from 30 of these 30 pictures or was chosen by them" in result.stderr
    refused = vitreous("calibrate", run / "rungs" / "lora", faces, "--split", "valid")
    assert refused.exit_code == 2
    assert "calibrate on others" in refused.stderr


def kept_by_the_rule(labels, answers):
    """Index of the simplest way within one standard error of the best, as the guide words it."""
    scores = [balanced_accuracy_score(labels, each) for each in answers]
    best = answers[int(np.argmax(scores))]
    sizes = np.bincount(labels)
    for index, each in enumerate(answers):
        differing = ((each == labels) != (best == labels)) / sizes[labels] / len(sizes)
        if max(scores) - scores[index] <= np.linalg.norm(differing) + 1e-9:
            return index
    raise AssertionError


def test_the_rung_kept_is_that_which_the_rule_says_of_the_answers(climbed):
    run, _ = climbed
    names, labels = ("probe", "lora", "full"), np.repeat([0, 1, 2], 10)
    answers = [read_tensors(run / "rungs" / name / "answers.safetensors")[0] for name in names]
    answers = [each["answers"].numpy() for each in answers]
    ladder = read_json(run / "ladder.json")
    scores = {row["name"]: row["balanced_accuracy"]["value"] for row in ladder["rows"]}
    for name, each in zip(names, answers, strict=True):
        assert balanced_accuracy_score(labels, each) == pytest.approx(scores[name])
    assert ladder["kept"] == names[kept_by_the_rule(labels, answers)]


@pytest.mark.parametrize(
    ("faults", "kept"), [((1, 0, 0), "probe"), ((4, 1, 0), "lora"), ((6, 4, 0), "full")]
)
def test_whichever_rung_the_answers_speak_for_is_kept(climbed, vitreous, tmp_path, faults, kept):
    """With others in their place: one fault more than the best is no difference, four are."""
    run = shutil.copytree(climbed[0], tmp_path / "run")
    for name, count in zip(("probe", "lora", "full"), faults, strict=True):
        answers = torch.arange(3, dtype=torch.int32).repeat_interleave(10)
        answers[:count] = 1
        write_tensors(run / "rungs" / name / "answers.safetensors", {"answers": answers}, {})
    (run / "evaluation.json").unlink()
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 0, result.stderr
    assert read_json(run / "ladder.json")["kept"] == kept
    mine, theirs = (
        read_tensors(path / "best.safetensors")[0] for path in (run, run / "rungs" / kept)
    )
    for name in mine.keys() - {"head.weight", "head.bias"}:
        assert torch.equal(mine[name], theirs[name]), name


def test_each_rung_changes_what_it_may(climbed, checkpoint):
    run, _ = climbed
    given = load_file(checkpoint)
    probe, lora, full = (
        read_tensors(run / "rungs" / name / "best.safetensors")[0]
        for name in ("probe", "lora", "full")
    )
    assert probe.keys() == lora.keys() == full.keys() == given.keys()

    def moved(one, other):
        return {name for name in one if not torch.equal(one[name], other[name])}

    assert moved(given, probe) == {"head.weight", "head.bias"}
    statistics = {name for name in given if "running" in name or "num_batches" in name}
    dense = {name for name in given if name.startswith("blocks.") and given[name].ndim == 2}
    assert moved(probe, lora) - statistics == dense | {"head.weight", "head.bias"}
    change = lora["blocks.0.mlp.fc1.weight"] - probe["blocks.0.mlp.fc1.weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 8
    assert moved(lora, full) >= given.keys() - statistics


def test_one_rung_alone(vitreous, checkpoint, faces, tmp_path):
    run = tmp_path / "probe"
    words = ("--weights", checkpoint, *QUICK, "--epochs", "1", "--tune", "probe")
    result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (run / "rungs").iterdir()) == ["probe"]
    assert read_json(run / "ladder.json")["kept"] == "probe"
    assert "after augmentation" not in (run / "report.html").read_text()
    run = tmp_path / "full"
    words = (*words[:-1], "full", "--set", "preprocess.mirror=false")
    assert vitreous("train", faces, "--out", run, *words).exit_code == 0
    assert sorted(path.name for path in (run / "rungs").iterdir()) == ["full", "probe"]
    assert read_json(run / "ladder.json")["kept"] == "full"
    assert "after augmentation" in (run / "report.html").read_text()


@pytest.mark.parametrize("stop_at", [2, 20])
def test_a_stopped_ladder_goes_on_to_the_same_bits(
    vitreous, climbed, checkpoint, faces, tmp_path, monkeypatch, stop_at
):
    """Among the low-rank updates, or when all weights learn; the checkpoint is gone then."""
    straight, _ = climbed
    weights = shutil.copy(checkpoint, tmp_path / "gone.safetensors")
    learn, steps = Learner.learn, []

    def stop_once(self, plan):
        loss = learn(self, plan)
        steps.append(self.state.step)
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Learner, "learn", stop_once)
    run = tmp_path / "stopped"
    words = ("--weights", weights, *QUICK, "--epochs", "3")
    result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 130
    assert f"--resume {run}\n" in result.stderr
    Path(weights).unlink()
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 0, result.stderr
    for name in ("probe", "lora", "full"):
        parts = (path / "rungs" / name / "best.safetensors" for path in (run, straight))
        first, second = (part.read_bytes() for part in parts)
        assert first == second
    assert read_json(run / "ladder.json")["kept"] == read_json(straight / "ladder.json")["kept"]


def test_a_ladder_stopped_among_the_yardsticks_begins_them_again(
    vitreous, checkpoint, faces, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    words = ("--weights", checkpoint, *QUICK, "--epochs", "1", "--tune", "probe")

    def stop(*words):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(climb, "nearest_neighbors", stop)
        assert vitreous("train", faces, "--out", run, *words).exit_code == 130
    assert [row["name"] for row in read_json(run / "ladder.json")["rows"]] == ["baseline"]
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 0, result.stderr
    names = [row["name"] for row in read_json(run / "ladder.json")["rows"]]
    assert names == ["baseline", "neighbors", "probe"]


def test_a_budget_is_divided_among_the_rungs(
    vitreous, checkpoint, faces, tmp_path, monkeypatch, now
):
    """However busy the machine is: what each gets is held against what was left just then."""
    monkeypatch.setattr(climb, "_LEAST_S", -math.inf)
    run, given, left = tmp_path / "run", {}, {}

    def note(name, seconds):
        """With what was left at most, by the rows so far, and at least, by the clock."""
        spent = sum(row["seconds"] for row in read_json(run / "ladder.json")["rows"])
        given[name] = seconds
        left[name] = 30 - (time.monotonic() - options.STARTED), max(30 - spent, 0.01)

    def train(config, *others):
        note(others[3].path.name, config.train.budget_s)
        return run_training(config, *others)

    def fit(*others):
        note("probe", others[3])
        return linear_probe(*others)

    run_training, linear_probe = climb.run_training, climb.linear_probe
    monkeypatch.setattr(climb, "run_training", train)
    monkeypatch.setattr(climb, "linear_probe", fit)
    words = ("--weights", checkpoint, *QUICK, "--budget", "30s", "--set", "ladder.lora_share=0.4")
    result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    assert given["probe"] <= min(3.0, left["probe"][1])
    assert 0.4 * left["lora"][0] <= given["lora"] <= 0.4 * left["lora"][1]
    assert left["full"][0] <= given["full"] <= left["full"][1]
    for name in ("lora", "full"):
        plan = read_json(run / "rungs" / name / "plan.json")
        steps, evaluations = plan["stretches"][0]["total_steps"], plan["evaluate_every"]
        planned_s = steps * (plan["step_s"] + plan["evaluation_s"] / evaluations)
        assert planned_s <= given[name] or steps == 1
    assert not (run / "plan.json").exists()
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["train"]["epochs"] == finetune.MOST_EPOCHS


def test_alone_the_probe_has_all_the_time(vitreous, checkpoint, faces, tmp_path, monkeypatch, now):
    linear_probe, given = climb.linear_probe, []

    def fit(*others):
        given.append(others[3])
        return linear_probe(*others)

    monkeypatch.setattr(climb, "linear_probe", fit)
    words = ("--weights", checkpoint, *QUICK, "--budget", "600s", "--tune", "probe")
    result = vitreous("train", faces, "--out", tmp_path / "run", *words)
    assert result.exit_code == 0, result.stderr
    assert 60 < given[0] < 600


def test_too_little_time_leaves_a_rung_out(vitreous, checkpoint, faces, tmp_path, now):
    run = tmp_path / "run"
    result = vitreous(
        "train", faces, "--out", run, "--weights", checkpoint, *QUICK, "--budget", "12s"
    )
    assert result.exit_code == 0, result.stderr
    assert "too few for 'full'" in result.stderr
    ladder = read_json(run / "ladder.json")
    assert ladder["kept"] == "probe"
    assert "full" in ladder["skipped"]


def test_a_rung_is_left_out_where_what_comes_behind_takes_all_the_time(
    vitreous, checkpoint, faces, tmp_path, monkeypatch, now
):
    monkeypatch.setattr(supervised, "cost_in_pictures", lambda pictures: 10**9)
    run = tmp_path / "run"
    words = ("--weights", checkpoint, *QUICK, "--budget", "600s", "--tune", "full")
    result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    assert "0 s to learn in are too few for 'full'" in result.stderr
    assert read_json(run / "ladder.json")["kept"] == "probe"


def test_a_rung_left_out_stays_out(vitreous, checkpoint, faces, tmp_path, monkeypatch):
    """Resumed behind it there may be more time, by the clock of another sitting."""
    run = tmp_path / "run"
    words = ("--weights", checkpoint, *QUICK, "--budget", "600s")
    monkeypatch.setattr(options, "STARTED", time.monotonic() - 590)

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(climb._Climber, "keep", stop)
        assert vitreous("train", faces, "--out", run, *words).exit_code == 130
    assert read_json(run / "ladder.json")["skipped"] == ["lora", "full"]
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (run / "rungs").iterdir()] == ["probe"]


def test_a_rung_that_diverges_is_left_out_for_good(
    vitreous, checkpoint, faces, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    words = ("--weights", checkpoint, *QUICK, "--epochs", "2", *DIVERGES)

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(climb._Climber, "keep", stop)
        result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 130
    assert "the ladder goes on without 'lora': the loss is not a number" in result.stderr
    assert "try --set ladder.lora_learning_rate=" in result.stderr
    assert read_json(run / "ladder.json")["skipped"] == ["lora"]
    tried = (run / "rungs" / "lora" / "metrics.jsonl").read_bytes()
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 0, result.stderr
    assert "is not a number" not in result.stderr
    assert (run / "rungs" / "lora" / "metrics.jsonl").read_bytes() == tried
    ladder = read_json(run / "ladder.json")
    assert [row["name"] for row in ladder["rows"]] == ["baseline", "neighbors", "probe", "full"]
    assert ladder["kept"] in ("probe", "full")
    assert vitreous("evaluate", run).exit_code == 0


def test_the_one_rung_asked_for_is_an_error_where_it_diverges(
    vitreous, checkpoint, faces, tmp_path
):
    run = tmp_path / "run"
    words = ("--weights", checkpoint, *QUICK, "--epochs", "2", *DIVERGES, "--tune", "lora")
    result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 1
    assert "try --set ladder.lora_learning_rate=" in result.stderr
    ladder = read_json(run / "ladder.json")
    assert (ladder["skipped"], ladder["kept"]) == ([], None)


def test_small_pictures_are_not_blown_up_to_the_weights_size(vitreous, timm, faces, tmp_path):
    torch.manual_seed(0)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=224, patch_size=16, embed_dim=64, depth=1, num_heads=1, num_classes=7
    )
    save_file(dict(model.state_dict()), tmp_path / "large.safetensors")
    words = ("--weights", tmp_path / "large.safetensors", "--preprocess", "half", "--tune", "probe")
    run = tmp_path / "run"
    result = vitreous("train", faces, "--out", run, *words, "--epochs", "1", "--explain-choice")
    assert result.exit_code == 0, result.stderr
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["model"]["image_size"] == config["preprocess"]["image_size"] == [80, 80]
    assert "model.image_size = 80x80" in result.stdout + result.stderr
    told = ("--preprocess", "crop=64")
    result = vitreous("train", faces, "--out", tmp_path / "told", *words, *told, "--epochs", "1")
    assert result.exit_code == 0, result.stderr
    config = tomllib.loads((tmp_path / "told" / "config.toml").read_text())
    assert config["model"]["image_size"] == [64, 64]


@pytest.mark.parametrize("words", [("--tune", "lora"), ("--recipe", "finetune")])
def test_tuning_needs_weights(vitreous, faces, tmp_path, words):
    result = vitreous("train", faces, "--out", tmp_path / "run", "--epochs", "1", *words)
    assert result.exit_code == 2
    assert "--weights" in result.stderr
    assert not (tmp_path / "run").exists()


def test_finished_folds_keep_nothing_that_only_resuming_needs(
    vitreous, checkpoint, faces, tmp_path
):
    words = ("--weights", checkpoint, *QUICK, "--epochs", "1", "--folds", "2")
    result = vitreous("train", faces, "--out", tmp_path / "run", *words)
    assert result.exit_code == 0, result.stderr
    for number in "12":
        fold = tmp_path / "run" / "folds" / number
        assert {path.name for path in (fold / "rungs").iterdir()} == {"probe", "lora", "full"}
        kept = [path for path in fold.rglob("*") if path.is_file()]
        assert not [path for path in kept if "checkpoints" in path.parts]
        assert not [path for path in kept if path.name == "features.safetensors"]
        assert (fold / "rungs" / "full" / "best.safetensors").exists()
