"""Which causes are named for which signals, and in what order."""

import shlex
from dataclasses import replace

import pytest

from vitreous.cli import cli
from vitreous.core.config import from_mapping, merge, parse_assignments, to_mapping
from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.diagnosis.case import Case
from vitreous.diagnosis.course import Course
from vitreous.diagnosis.inside import Inside
from vitreous.diagnosis.judge import MOST, judge
from vitreous.diagnosis.signals import Answers, Signals
from vitreous.evaluation.intervals import proportion_interval
from vitreous.model.config import ModelConfig
from vitreous.training.config import LadderConfig, RunConfig

CLASSES = ("angry", "happy", "sad")
CONFIG = RunConfig(
    "scratch",
    DataConfig("faces"),
    ModelConfig(image_size=(32, 32), patch_size=(8, 8), num_classes=3),
    Preprocess(image_size=(32, 32)),
)
#: Settings of which signals alone show nothing.
DIVIDED = replace(CONFIG, preprocess=replace(CONFIG.preprocess, std=(50.0, 50.0, 50.0)))
TURNED = replace(CONFIG, augment=AugmentConfig(rotate_degrees=180.0))
INSIDE = Inside(logits=2.0, size=1.0, off=None, gradient=1.0)


def answers(right: float, n: int = 300, favourite_share: float = 0.35) -> Answers:
    share = proportion_interval(round(right * n), n)
    return Answers(n=n, accuracy=share, balanced=share, chance=1 / 3, favourite=1,
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


ONE_LABEL = {"counts": (5, 290, 5), "held_out": answers(0.34, 120, 0.99)}


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
    for config in (CONFIG, DIVIDED, TURNED, training(warmup=0.0)):
        assert named(replace(LEARNED, **odd), config) == []


def test_nothing_is_guessed():
    assert named(NOTHING_LEARNED) == []


@pytest.mark.parametrize(
    ("kind", "changes", "config"),
    [
        ("rate_too_high", {"step": 0.5}, CONFIG),
        ("rate_too_low", {"step": 1e-6, "moved": 1e-4}, CONFIG),
        ("normalisation", {"input_std": 0.004}, DIVIDED),
        ("augmentation", {"likeness": 0.1}, TURNED),
        ("head", {"before": replace(INSIDE, logits=100.0)}, CONFIG),
        ("head", {"before": replace(INSIDE, logits=0.0, size=1e6)}, CONFIG),
        ("head", {"before": replace(INSIDE, off=1.0), "after": replace(INSIDE, off=1.0)}, CONFIG),
        ("labels", {"thumbnails": answers(0.33, 120)}, CONFIG),
        ("one_label", ONE_LABEL, CONFIG),
    ],
)
def test_each_signal_of_a_run_that_learned_nothing_is_named(kind, changes, config):
    assert named(replace(NOTHING_LEARNED, **changes), config) == [kind]


def test_what_is_set_as_usual_is_not_blamed():
    black = replace(NOTHING_LEARNED, input_mean=-0.99, input_std=0.004)
    assert named(black) == []
    # Nor does it hide what else is wrong.
    assert named(replace(black, before=replace(INSIDE, logits=100.0))) == ["head"]
    jumped = replace(black.course, peak=5.0)
    assert named(replace(black, step=0.05, course=jumped), training(warmup=0.0)) == ["no_warmup"]
    # Divided by a quarter and not a half, they would be as black.
    imagenet = replace(CONFIG.preprocess, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert named(black, replace(CONFIG, preprocess=imagenet)) == []
    assert named(replace(NOTHING_LEARNED, likeness=0.1)) == []


def test_one_label_hides_no_setting_and_no_dead_head():
    signals = replace(NOTHING_LEARNED, **ONE_LABEL)
    assert named(replace(signals, step=0.5)) == ["rate_too_high", "one_label"]
    assert named(replace(signals, input_std=0.004), DIVIDED) == ["normalisation", "one_label"]
    always = answers(0.97, favourite_share=1.0)
    always = replace(always, balanced=answers(1 / 3).balanced)
    dead = replace(signals, train=always, after=replace(INSIDE, off=1.0, gradient=0.0))
    assert named(dead) == ["collapse", "one_label"]
    # It explains what is left where no setting does.
    assert named(replace(signals, train=always)) == ["one_label"]
    assert named(replace(signals, thumbnails=answers(0.33, 120))) == ["one_label"]


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
    lecture = replace(
        training(learning_rate=1e-3, warmup=0.0, final_learning_rate=1.0),
        preprocess=replace(CONFIG.preprocess, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3),
    )
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
    # Where left and right differ, flips are off for a reason.
    bare = AugmentConfig(flip=0.0, affine_chance=0.0)
    (cause,) = judge(Case(by_heart, replace(CONFIG, augment=bare), CLASSES, "runs/a")).causes
    assert cause.change == {"augment.affine_chance": AugmentConfig.affine_chance}
    arrows = replace(CONFIG, augment=AugmentConfig(flip=0.0))
    (cause,) = judge(Case(by_heart, arrows, CLASSES, "runs/a")).causes
    assert cause.change == {}


@pytest.mark.parametrize("counts", [(10, 10, 10), (100, 100, 100)])
def test_what_began_with_pretrained_weights_is_not_told_to(counts):
    by_heart = replace(LEARNED, train=answers(1.0), held_out=answers(0.45, 120), counts=counts)

    def advised(config: RunConfig) -> tuple[str, str]:
        cause = judge(Case(by_heart, config, CLASSES, "runs/a")).causes[0]
        assert "Collect more pictures" in cause.advice
        return cause.advice, cause.command

    advice, command = advised(CONFIG)
    assert "pretrained model" in advice
    assert command == "vitreous train faces --weights auto --out runs/a-2"
    begun = replace(CONFIG, init="runs/b c")
    all_tuned = replace(begun, ladder=LadderConfig(rungs=("full",)))
    for config in (begun, all_tuned):
        advice, command = advised(config)
        assert "a new head alone" in advice
        assert command == (
            "vitreous train faces --config runs/a/config.toml --weights 'runs/b c' --tune probe "
            "--out runs/a-2"
        )
    # Of a ladder that had a head alone, the simplest as good as the best was kept.
    advice, command = advised(replace(begun, ladder=LadderConfig()))
    assert "head" not in advice
    assert "pretrained" not in advice
    assert command == ""


def test_an_overlay_goes_with_every_command_that_trains_on_the_same_pictures():
    by_heart = replace(LEARNED, train=answers(1.0), held_out=answers(0.45, 120))
    config = replace(CONFIG, data=replace(CONFIG.data, overlay="/far/runs/a b/overlay.csv"))
    cause = judge(Case(by_heart, config, CLASSES, "runs/a b")).causes[0]
    assert cause.command == (
        "vitreous train faces --overlay 'runs/a b/overlay.csv' --weights auto --out 'runs/a b-2'"
    )
    # The settings of a run name its overlay too, but where the run was when it began.
    cause = judge(Case(by_heart, replace(config, init="runs/b"), CLASSES, "runs/a b")).causes[0]
    assert "--config" in cause.command
    assert "--overlay 'runs/a b/overlay.csv'" in cause.command


@pytest.mark.parametrize(
    ("last", "words"),
    [(0.9, "fell from 1.1 to 0.9"), (1.2, "rose from 1.1 to 1.2"), (1.101, "stayed at 1.1")],
)
def test_what_the_loss_did_is_said_as_it_was(last, words):
    course = replace(NOTHING_LEARNED.course, steps=9, total_steps=9, middle=1.1, last=last)
    (cause,) = judge(Case(replace(NOTHING_LEARNED, course=course), CONFIG, CLASSES, "a")).causes
    assert f"the training loss {words} in the second half" in cause.evidence


def test_too_short_and_too_small():
    short = replace(NOTHING_LEARNED, course=replace(NOTHING_LEARNED.course, steps=9, total_steps=9))
    assert named(short) == ["underfitting"]
    falling = replace(NOTHING_LEARNED.course, middle=1.1, last=0.9)
    assert named(replace(NOTHING_LEARNED, course=falling)) == ["underfitting"]
    assert named(replace(NOTHING_LEARNED, parameters=700)) == ["underfitting"]


def test_labels_come_behind_what_keeps_any_from_being_learned():
    hard = replace(NOTHING_LEARNED, thumbnails=answers(0.33, 120))
    assert named(replace(hard, parameters=700)) == ["underfitting"]
    always = {"train": answers(0.34, favourite_share=1.0), "held_out": answers(0.34, 120, 1.0)}
    assert named(replace(hard, **always)) == ["collapse"]
    by_heart = replace(hard, parameters=700, train=answers(0.6))
    assert named(by_heart) == ["labels"]


def test_four_times_as_long_is_more_than_the_epochs_there_may_be():
    falling = replace(NOTHING_LEARNED.course, middle=1.1, last=0.9, epochs=60.0)
    signals = replace(NOTHING_LEARNED, course=falling)

    def change(**train) -> dict:
        case = Case(signals, training(**train), CLASSES, "runs/a")
        return dict(judge(case).causes[0].change)

    at_its_cap = {"train.budget_s": 400.0, "train.epochs": 240.0}
    assert change(budget_s=100.0, epochs=60.0) == at_its_cap
    assert change(budget_s=100.0, epochs=1000.0) == {"train.budget_s": 400.0}
    assert change(epochs=60.0) == {"train.epochs": 240.0}
    # A rung may have a share of the epochs.
    assert change(epochs=240.0) == {"train.epochs": 960.0}


def test_not_more_than_three_are_named():
    everything = replace(
        NOTHING_LEARNED, leaked=60, step=0.5, input_std=0.004, likeness=0.0, right_if_not=0.3
    )
    kinds = named(everything, DIVIDED)
    assert kinds == ["leak", "rate_too_high", "normalisation"]
    assert len(kinds) == MOST


def test_a_change_is_a_command_for_a_shell():
    config = replace(DIVIDED, data=DataConfig("my faces"))
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
    fold = judge(Case(bare, CONFIG, CLASSES, "runs/a", "folds/2"))
    assert fold.seen == f"Looked at is its folds/2, which was trained last. {diagnosis.seen}"
    non_finite = replace(bare, course=replace(bare.course, non_finite_step=4), step=1e27)
    found = judge(Case(non_finite, training(learning_rate=1e30), CLASSES, "runs/a"))
    assert [cause.kind for cause in found.causes] == ["non_finite"]
    assert found.causes[0].change["train.learning_rate"] < 1e3


def test_a_rate_that_was_tried_is_not_proposed_again():
    """A run that went back twice ended at a sixteenth of its rate."""
    course = Course(steps=3, total_steps=60, non_finite_step=4, rate_share=1 / 16)
    signals = replace(NOTHING_LEARNED, course=course, step=None)
    (cause, *_) = judge(Case(signals, training(learning_rate=3e-3), CLASSES, "runs/a")).causes
    assert "at a learning rate of 0.00019" in cause.evidence
    assert cause.change["train.learning_rate"] == 5e-5


def test_low_rank_updates_of_a_ladder_have_a_rate_of_their_own():
    course = Course(steps=3, total_steps=60, non_finite_step=4)
    ladder = LadderConfig(lora_learning_rate=1e3)
    begun = replace(training(learning_rate=1e3), init="runs/b", ladder=ladder)
    config = replace(begun, train=replace(begun.train, lora_rank=4))
    signals = replace(NOTHING_LEARNED, course=course)
    change = judge(Case(signals, config, CLASSES, "runs/a", "rungs/lora")).causes[0].change
    assert change["ladder.lora_learning_rate"] < 1e3
    assert "train.learning_rate" not in change


EVERY_CASE = [
    (LEARNED, {"leaked": 30}, CONFIG),
    (NOTHING_LEARNED, {"course": Course(steps=3, total_steps=60, non_finite_step=4)}, CONFIG),
    (NOTHING_LEARNED, {"before": replace(INSIDE, logits=100.0)}, CONFIG),
    (NOTHING_LEARNED, {"before": replace(INSIDE, logits=100.0)}, replace(CONFIG, init="runs/b")),
    (NOTHING_LEARNED, {"before": replace(INSIDE, off=1.0)}, CONFIG),
    (NOTHING_LEARNED, {"step": 0.5}, CONFIG),
    (NOTHING_LEARNED, {"input_std": 0.004}, DIVIDED),
    (NOTHING_LEARNED, {"likeness": 0.1}, TURNED),
    (NOTHING_LEARNED, {"thumbnails": answers(0.33, 120)}, CONFIG),
    (NOTHING_LEARNED, ONE_LABEL, CONFIG),
    (NOTHING_LEARNED, {"parameters": 700}, CONFIG),
    (NOTHING_LEARNED, {"course": replace(LEARNED.course, total_steps=700)}, CONFIG),
    (LEARNED, {"train": answers(1.0), "held_out": answers(0.45, 120)}, CONFIG),
    (LEARNED, {"train": answers(1.0), "held_out": answers(0.45, 120)},
     replace(CONFIG, init="runs/b")),
]  # fmt: skip


@pytest.mark.parametrize(("signals", "changes", "config"), EVERY_CASE)
def test_every_command_is_one_that_there_is(signals, changes, config):
    """Read as a shell and the command line read it; settings are checked by themselves."""
    diagnosis = judge(Case(replace(signals, **changes), config, CLASSES, "runs/a"))
    assert diagnosis.causes
    for cause in diagnosis.causes:
        program, name, *words = shlex.split(cause.command)
        assert program == "vitreous"
        context = cli.commands[name].make_context(name, words)
        named = parse_assignments(context.params.get("assignments", ()))
        assert from_mapping(RunConfig, merge(to_mapping(config), named))
        assert bool(named) == bool(cause.change)
