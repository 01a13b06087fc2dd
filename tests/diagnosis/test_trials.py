"""Short trainings tell a cause that is one from a cause that is none."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.stuck_runs import Pictures, compact
from vitreous.core.config import merge
from vitreous.core.console import Console
from vitreous.data.dataset import open_dataset
from vitreous.data.folder import list_labelled
from vitreous.data.loader import PictureSet
from vitreous.diagnosis import trials
from vitreous.diagnosis.case import Case
from vitreous.diagnosis.causes import Cause, Diagnosis
from vitreous.diagnosis.course import Course
from vitreous.diagnosis.gather import Weights, gather
from vitreous.diagnosis.trials import Outcome, Trials, changed, try_causes
from vitreous.errors import ConfigError
from vitreous.recipes.configure import configure
from vitreous.training.learner import first_weights

#: One part of a batch, however many threads there are: bits, and so what short trainings learn by
#: chance, are the same everywhere.
SMALL = {"model": {"depth": 1, "embed_dim": 32, "num_heads": 2, "stem": [8, 16, 32],
                   "stem_blocks": [0, 0, 0]}, "train": {"shards": 1}}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Faces upright and not: easy enough to be learned within some dozen steps."""
    place = tmp_path_factory.mktemp("faces")
    pictures = Pictures(place, 30, 10, 24, seed=81)
    table = pictures.upright(2)
    settings = merge(merge(compact(10), SMALL), {"data": {"cache_dir": str(place / "cache")}})
    listing = list_labelled(table)
    config = configure(table, listing, changes=settings).config
    return config, open_dataset(listing, config.data, config.preprocess, 0)


@pytest.fixture(autouse=True)
def sixty_steps(monkeypatch):
    """However fast the machine is."""
    for name in ("_FEWEST_STEPS", "_MOST_STEPS"):
        monkeypatch.setattr(trials, name, 60)


def case_of(opened, change: dict | None = None) -> Case:
    config, dataset = opened
    config = changed(config, change or {})
    first = first_weights(config, None)
    signals = gather(config, dataset, "valid", Course(), Weights(first, first, first))
    return Case(signals, config, dataset.classes, "runs/a")


def tried(opened, case: Case, *causes: Cause) -> Diagnosis:
    train = opened[1].sets["train"]
    diagnosis = Diagnosis("", causes)
    return try_causes(case, diagnosis, None, train, 4.0, Console(quiet=True))


def test_a_change_that_helps_is_told_with_both_losses(opened):
    case = case_of(opened, {"train.learning_rate": 3.0})
    other = Cause("normalisation", "", "", {"train.learning_rate": 3.0})  # as it is
    cause = Cause("rate_too_high", "", "", {"train.learning_rate": 4e-3})
    found = tried(opened, case, other, cause)
    assert [one.kind for one in found.causes] == ["rate_too_high", "normalisation"]
    first, second = found.causes
    assert first.tried.startswith("tried, and it helps: the loss on training pictures is 0.")
    assert second.tried.startswith("tried, too briefly to show")
    better, unchanged = re.findall(r"[\d.]+", second.tried.replace("60 steps", ""))
    assert float(better) == float(unchanged)
    assert found.tried.startswith("3 short trainings of 60 steps")


def test_labels_are_held_against_shuffled_ones(opened):
    cause = Cause("labels", "", "")
    assert tried(opened, case_of(opened), cause).causes == ()
    config, dataset = opened
    train = dataset.sets["train"]
    order = np.random.default_rng(0).permutation(len(train))
    wrong = replace(train, labels=train.labels[order])
    spoilt = config, replace(dataset, sets={**dataset.sets, "train": wrong})
    found = tried(spoilt, case_of(spoilt), cause)
    assert [one.kind for one in found.causes] == ["labels"]
    assert "make no difference" in found.causes[0].tried


def test_labels_that_nothing_was_learned_of_are_not_shown_to_be_wrong(opened):
    found = tried(opened, case_of(opened, {"train.learning_rate": 1e-6}), Cause("labels", "", ""))
    assert [one.kind for one in found.causes] == ["labels"]
    assert found.causes[0].tried.startswith("tried, too briefly to show: after 60 steps")


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_answering_blindly_is_not_learning(opened, weights):
    """Nine of ten upright: their share alone is told, with smoothed targets."""
    config, dataset = opened
    train = dataset.sets["train"]
    upright, others = (np.flatnonzero(train.labels.numpy() == label) for label in (0, 1))
    few = np.sort(np.concatenate([upright, others[: len(upright) // 9]]))
    uneven = replace(train, rows=train.rows[few], labels=train.labels[few], paths=())
    config = changed(config, {"train.label_smoothing": 0.2, "train.class_weights": weights})
    black = replace(uneven, pixels=np.zeros_like(train.pixels[:]))

    def outcome_of(pictures: PictureSet) -> Outcome:
        trials = Trials(config, pictures, dataset.classes, None)
        trials.steps = 60
        return trials.run({})

    assert outcome_of(uneven).has_learned
    outcome = outcome_of(black)
    assert not outcome.has_learned
    shares = np.sort(np.bincount(uneven.labels.numpy()))[::-1] / len(uneven)
    weight = 1 / (2 * shares) if weights == "balanced" else np.ones(2)
    entropy = np.log(2) if weights == "balanced" else -(shares * np.log(shares)).sum()
    assert outcome.blind == pytest.approx(entropy)
    assert entropy <= outcome.mean
    # One answer for all black pictures, whose losses are those of the many and of the few.
    answer = np.exp(-np.unique(outcome.losses.round(6)) / weight)
    assert answer.sum() == pytest.approx(1, abs=1e-4)


def test_a_run_stuck_on_nothing_that_shows_is_tried_at_other_rates(opened):
    found = tried(opened, case_of(opened, {"train.learning_rate": 1e-5}))
    assert [cause.kind for cause in found.causes] == ["rate_too_low"]
    assert found.causes[0].change == {"train.learning_rate": 1e-4}
    assert found.causes[0].command.startswith("vitreous train ")


def test_of_a_run_that_left_no_weights_no_other_rates_are_tried(opened):
    case = case_of(opened, {"train.learning_rate": 1e-5})
    case = replace(case, signals=replace(case.signals, train=None, held_out=None))
    assert tried(opened, case) == Diagnosis("")


def test_what_no_short_training_can_show_is_left_as_it_is(opened):
    causes = Cause("leak", "", ""), Cause("overfitting", "", "", {"augment.flip": 0.5})
    found = tried(opened, case_of(opened), *causes)
    assert found == Diagnosis("", causes)
    # Weights to begin with that are to blame are no setting that could be changed for a trial.
    head = Cause("head", "", "Begin with other weights.", {}, "vitreous train faces")
    assert tried(opened, case_of(opened), head) == Diagnosis("", (head,))


def test_a_trial_is_the_same_every_time_and_ends_in_time(opened):
    config, dataset = opened
    short = Trials(config, dataset.sets["train"], dataset.classes, None)
    assert short.fit_into(1e-9, 5) > 0
    assert short.steps == 60
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert np.array_equal(short.run({}).losses, short.run({}).losses)
    assert torch.equal(torch.rand(3), expected)  # the caller's stream is left alone
    worse = short.run({"train.learning_rate": 1e30, "train.clip_norm": 1e30})
    assert not np.isfinite(worse.losses).all()


def test_a_change_of_no_setting_is_refused(opened):
    with pytest.raises(ConfigError, match="learning_rat"):
        changed(opened[0], {"train.learning_rat": 1.0})
