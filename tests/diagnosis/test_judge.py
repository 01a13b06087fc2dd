"""Which causes are named for which signals, and in what order."""

from dataclasses import replace

import pytest

from vitreous.data.config import DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.diagnosis.case import Case
from vitreous.diagnosis.course import Course
from vitreous.diagnosis.inside import Inside
from vitreous.diagnosis.judge import MOST, judge
from vitreous.diagnosis.signals import Answers, Signals
from vitreous.evaluation.intervals import proportion_interval
from vitreous.model.config import ModelConfig
from vitreous.training.config import RunConfig

CLASSES = ("angry", "happy", "sad")
CONFIG = RunConfig(
    "scratch",
    DataConfig("faces"),
    ModelConfig(image_size=(32, 32), patch_size=(8, 8), num_classes=3),
    Preprocess(image_size=(32, 32)),
)
INSIDE = Inside(logits=2.0, size=1.0, off=None, gradient=1.0)


def answers(right: float, n: int = 300, favourite_share: float = 0.35) -> Answers:
    share = proportion_interval(round(right * n), n)
    return Answers(n=n, accuracy=share, balanced=share, chance=1 / 3, loss=0.5, favourite=1,
                   favourite_share=favourite_share)  # fmt: skip


LEARNED = Signals(
    course=Course(steps=600, total_steps=600, epochs=60, first=1.1, peak=1.4, middle=0.7, last=0.4,
                  valid_lowest=0.4, valid_last=0.45,
                  valid_lowest_epoch=50.0),
    counts=(100, 100, 100),
    floor=1.0986,
    input_mean=0.0,
    input_std=0.4,
    likeness=0.8,
    parameters=800_000,
    train=answers(0.95),
    augmented=answers(0.9),
    held_out=answers(0.85, 120),
    thumbnails=answers(0.5, 120),
    before=replace(INSIDE, logits=0.0, gradient=0.0),
    after=INSIDE,
    step=0.005,
    moved=0.4,
)  # fmt: skip
NOTHING_LEARNED = replace(
    LEARNED,
    course=replace(LEARNED.course, middle=1.1, last=1.1),
    train=answers(0.34),
    augmented=answers(0.34),
    held_out=answers(0.34, 120),
)


def named(signals: Signals, config: RunConfig = CONFIG) -> list[str]:
    diagnosis = judge(Case(signals, config, CLASSES, "runs/a"))
    assert diagnosis.seen
    return [cause.kind for cause in diagnosis.causes]


def training(**changes) -> RunConfig:
    return replace(CONFIG, train=replace(CONFIG.train, **changes))


@pytest.mark.parametrize(
    "odd",
    [
        {"step": 0.5},
        {"step": 1e-6, "moved": 1e-4},
        {"input_std": 0.004},
        {"input_mean": 126.0, "input_std": 51.0},
        {"likeness": 0.1},
        {"before": replace(INSIDE, logits=100.0)},
        {"counts": (5, 290, 5)},
        {"course": replace(LEARNED.course, peak=20.0)},
        {"thumbnails": answers(0.33, 120)},
        {"after": replace(INSIDE, off=0.95)},
    ],
)
def test_odd_signals_of_a_run_that_learned_are_let_be(odd):
    assert named(replace(LEARNED, **odd)) == []
    assert named(replace(LEARNED, **odd), training(warmup=0.0)) == []


def test_nothing_is_guessed():
    assert named(NOTHING_LEARNED) == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("rate_too_high", {"step": 0.5}),
        ("rate_too_low", {"step": 1e-6, "moved": 1e-4}),
        ("normalisation", {"input_std": 0.004}),
        ("augmentation", {"likeness": 0.1}),
        ("head", {"before": replace(INSIDE, logits=100.0)}),
        ("head", {"before": replace(INSIDE, logits=0.0, size=1e6)}),
        ("head", {"before": replace(INSIDE, off=1.0), "after": replace(INSIDE, off=1.0)}),
        ("labels", {"thumbnails": answers(0.33, 120)}),
        ("one_label", {"counts": (5, 290, 5), "held_out": answers(0.34, 120, 0.99)}),
    ],
)
def test_each_signal_of_a_run_that_learned_nothing_is_named(kind, changes):
    assert named(replace(NOTHING_LEARNED, **changes)) == [kind]


def test_a_rate_in_between_is_told_by_what_the_loss_did():
    course = replace(NOTHING_LEARNED.course, peak=5.0)
    jumped = replace(NOTHING_LEARNED, step=0.05, course=course)
    assert named(jumped) == ["rate_too_high"]
    assert named(jumped, training(warmup=0.0)) == ["no_warmup"]
    assert named(replace(jumped, step=0.5), training(warmup=0.0)) == ["rate_too_high"]


def test_the_lectures_collapse_comes_before_its_settings():
    signals = replace(
        NOTHING_LEARNED,
        input_mean=126.0,
        input_std=51.0,
        train=answers(0.444, favourite_share=1.0),
        held_out=answers(0.444, 120, 1.0),
        after=replace(INSIDE, off=1.0, gradient=0.0),
        course=replace(NOTHING_LEARNED.course, first=100.0, peak=3800.0),
    )
    lecture = training(learning_rate=1e-3, warmup=0.0, final_learning_rate=1.0)
    diagnosis = judge(Case(signals, lecture, CLASSES, "runs/stuck"))
    assert [cause.kind for cause in diagnosis.causes] == ["collapse", "normalisation"]
    first = diagnosis.causes[0]
    assert "ended answering 'happy' for 100 %" in first.evidence
    assert "44 % right is only that class's share" in first.evidence
    assert "nothing before them learns" in first.evidence
    # What docs/lecture/wall.md found to help.
    assert first.change == {
        "train.learning_rate": 1e-4,
        "train.warmup": 0.1,
        "train.final_learning_rate": 0.01,
        "preprocess.mean": [0.5, 0.5, 0.5],
        "preprocess.std": [0.5, 0.5, 0.5],
    }


def test_a_leak_is_told_of_a_run_that_learned_too():
    signals = replace(LEARNED, leaked=30, right_if_leaked=1.0, right_if_not=0.6)
    assert named(signals) == ["leak"]
    assert named(replace(signals, leaked=3)) == []
    text = judge(Case(signals, CONFIG, CLASSES, "a")).causes[0].evidence
    assert "30 of the 120" in text
    assert "60 % of the others, which is the true score" in text


def test_what_is_known_by_heart():
    by_heart = replace(LEARNED, train=answers(1.0), held_out=answers(0.45, 120))
    assert named(by_heart) == ["overfitting"]
    assert named(replace(by_heart, counts=(10, 10, 10))) == ["too_little_data"]
    hard = replace(LEARNED, train=answers(0.9), held_out=answers(0.7, 120))
    assert named(hard) == []


def test_too_short_and_too_small():
    short = replace(NOTHING_LEARNED, course=replace(NOTHING_LEARNED.course, steps=9, total_steps=9))
    assert named(short) == ["underfitting"]
    falling = replace(NOTHING_LEARNED.course, middle=1.1, last=0.9)
    assert named(replace(NOTHING_LEARNED, course=falling)) == ["underfitting"]
    assert named(replace(NOTHING_LEARNED, parameters=700)) == ["underfitting"]


def test_not_more_than_three_are_named():
    everything = replace(
        NOTHING_LEARNED, leaked=60, step=0.5, input_std=0.004, likeness=0.0, right_if_not=0.3
    )
    kinds = named(everything)
    assert kinds == ["leak", "rate_too_high", "normalisation"]
    assert len(kinds) == MOST


def test_a_change_is_a_command_for_a_shell():
    config = replace(CONFIG, data=DataConfig("my faces"))
    signals = replace(NOTHING_LEARNED, input_std=0.004)
    cause = judge(Case(signals, config, CLASSES, "runs/a b")).causes[0]
    assert cause.command == (
        "vitreous train 'my faces' --config 'runs/a b/config.toml' "
        "--set 'preprocess.mean=[0.5,0.5,0.5]' --set 'preprocess.std=[0.5,0.5,0.5]' "
        "--out 'runs/a b-2'"
    )


def test_a_run_that_left_nothing():
    course = Course(steps=3, total_steps=60, first=1.1, peak=1.1, middle=1.1, last=1.1)
    bare = Signals(
        course=course,
        counts=(10, 10, 10),
        floor=1.1,
        input_mean=0.0,
        input_std=0.4,
        likeness=0.8,
    )
    diagnosis = judge(Case(bare, CONFIG, CLASSES, "runs/a"))
    assert diagnosis.seen == "It stopped at step 3 of 60 and left no weights."
    non_finite = replace(bare, course=replace(bare.course, non_finite_step=4), step=1e27)
    found = judge(Case(non_finite, training(learning_rate=1e30), CLASSES, "runs/a"))
    assert [cause.kind for cause in found.causes] == ["non_finite"]
    assert found.causes[0].change["train.learning_rate"] < 1e3
