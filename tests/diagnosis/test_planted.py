"""Runs with a cause planted, and healthy ones: the small form of benchmarks/diagnosis.py."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks.stuck_runs import Pictures, Planted, broken, compact
from vitreous.core.config import dump_toml, merge
from vitreous.core.console import Console
from vitreous.core.run import RunFolder
from vitreous.data.dataset import open_dataset
from vitreous.data.folder import list_labelled
from vitreous.diagnosis.causes import Diagnosis
from vitreous.diagnosis.examination import diagnose_run
from vitreous.errors import TrainingError
from vitreous.evaluation.inference import TorchNetwork
from vitreous.evaluation.score import evaluate_set
from vitreous.evaluation.thumbnails import thumbnail_answers
from vitreous.recipes.configure import configure
from vitreous.training.learner import ClassLearner
from vitreous.training.trainer import Clock, Sitting, ValidScore, train

#: Those that are long enough to be told, or known to be broken, within so many epochs.
BROKEN = {
    "rate-100x": 10,
    "rate-1000x-low": 10,
    "no-warmup": 12,
    "shuffled": 30,
    "one-label": 10,
    "leaking": 16,
    "std-50": 8,
    "few-pictures": 8,
    "two-epochs": 2,
    "augmented-away": 10,
    "dead-head": 6,
    "non-finite": 4,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Pictures:
    return Pictures(tmp_path_factory.mktemp("faces"), 40, 20, 24, seed=71)


def smaller(planted: Planted) -> Planted:
    """With a model that takes milliseconds a step."""
    stem = (
        {"stem": [8, 16, 32], "stem_blocks": [0, 0, 0]} if planted.settings["model"]["stem"] else {}
    )
    model = {"depth": 1, "embed_dim": 32, "num_heads": 2, **stem}
    return replace(planted, settings=merge(planted.settings, {"model": model}))


def diagnosed(planted: Planted, place: Path) -> Diagnosis:
    """Train as a run does, without its report, and diagnose."""
    source = planted.pictures()
    listing = list_labelled(source)
    changes = merge(planted.settings, {"data": {"cache_dir": str(place / "cache")}})
    config = configure(source, listing, changes=changes).config
    dataset = open_dataset(listing, config.data, config.preprocess, config.train.seed)
    train_set, valid_set = dataset.sets["train"], dataset.sets["valid"]

    def validate(model):
        network = TorchNetwork(model)
        found, _ = evaluate_set(network, valid_set, config.preprocess, dataset.classes, None)
        return ValidScore(
            accuracy=found.accuracy.value,
            balanced_accuracy=found.balanced_accuracy.value,
            loss=found.loss,
        )

    run = RunFolder.create(place / planted.name, {"config.toml": dump_toml(config)})
    learner = partial(ClassLearner, classes=dataset.classes)
    sitting = Sitting(Console(quiet=True), Clock(time.monotonic()))
    if planted.cause == "non_finite":
        with pytest.raises(TrainingError, match="vitreous diagnose"):
            train(config, train_set, learner, validate, run, sitting)
    else:
        train(config, train_set, learner, validate, run, sitting)
    thumbnails = thumbnail_answers(train_set, valid_set, config.train.seed)
    return diagnose_run(run, config, dataset, "valid", None, thumbnails=thumbnails)


@pytest.mark.parametrize("name", BROKEN)
def test_the_planted_cause_is_named_first(name, pictures, tmp_path):
    planted = next(one for one in broken(pictures, BROKEN[name]) if one.name == name)
    with planted.around():
        diagnosis = diagnosed(smaller(planted), tmp_path)
    assert [cause.kind for cause in diagnosis.causes][:1] == [planted.cause]
    first = diagnosis.causes[0]
    assert any(letter.isdigit() for letter in first.evidence)
    assert first.command.startswith("vitreous ")


@pytest.mark.parametrize("classes", [2, 3])
def test_a_healthy_run_is_left_in_peace(classes, pictures, tmp_path):
    """Which way up a face is, is soon learned."""
    planted = Planted("upright", None, "", lambda: pictures.upright(classes), compact(12))
    diagnosis = diagnosed(smaller(planted), tmp_path)
    assert diagnosis.causes == ()
    assert "Balanced accuracy" in str(diagnosis)
