"""Settings under which nothing can learn: rate, warm-up, scale of the input, augmentation."""

from dataclasses import fields

from vitreous.data.config import AugmentConfig
from vitreous.diagnosis.case import Case, figure, measured, percent
from vitreous.diagnosis.causes import Cause

#: Steps relative to the weights: above the first nothing learns, above the second it takes care,
#: below the third nothing moves.
_WILD_STEP, _HIGH_STEP, _FAINT_STEP = 0.1, 0.02, 2e-4
#: How far weights have come that hardly moved, relative to their size.
_HARDLY_MOVED = 0.02
#: A loss that rose so many times above its start.
_ROSE = 2.0
#: In fewer steps a rate can't show what it does.
_FEW_STEPS = 20
#: What augmentation has to leave of a picture (`gather.likeness`).
_LEAST_LIKENESS = 0.3
_DEFAULTS = AugmentConfig()


def rate_too_high(case: Case) -> Cause | None:
    """Steps as large as the weights, or a loss that a high rate drove up."""
    step, train = case.signals.step, case.config.train
    if not case.is_poor or step is None or case.signals.course.steps < _FEW_STEPS:
        return None
    tame_warmup = train.warmup == 0 and step <= _WILD_STEP
    if step <= _WILD_STEP and (step <= _HIGH_STEP or case.rise < _ROSE or tame_warmup):
        return None
    rate = case.usual_rate()
    return Cause(
        "rate_too_high",
        f"at the highest rate, {train.learning_rate:g}, each step moves the weights by "
        f"{measured(step)} their size (usual: 0.1 to 1 %); {case.course_in_words()}",
        f"Train anew at a rate of {rate:g}.",
        {"train.learning_rate": rate} | ({"train.warmup": 0.1} if train.warmup == 0 else {}),
    )


def no_warmup(case: Case) -> Cause | None:
    """A loss that jumped because the first steps were the largest."""
    step, train = case.signals.step, case.config.train
    if train.warmup > 0 or not case.is_poor or case.rise < _ROSE or step is None:
        return None
    if step > _WILD_STEP or case.signals.course.steps < _FEW_STEPS or case.is_odd_scale:
        return None
    return Cause(
        "no_warmup",
        f"the first step was taken at the whole rate, {train.learning_rate:g} (train.warmup is "
        f"0); {case.course_in_words()}",
        "Let the rate rise over the first tenth of the steps.",
        {"train.warmup": 0.1},
    )


def rate_too_low(case: Case) -> Cause | None:
    """Weights that hardly moved for the smallness of each step."""
    signals, train = case.signals, case.config.train
    if signals.step is None or signals.moved is None or not case.is_poor:
        return None
    if (
        signals.step > _FAINT_STEP
        or signals.moved > _HARDLY_MOVED
        or signals.course.steps < _FEW_STEPS
    ):
        return None
    rate = case.usual_rate()
    return Cause(
        "rate_too_low",
        f"{signals.course.steps:,} steps moved the weights by {percent(signals.moved)} of their "
        f"size in all; at the highest rate, {train.learning_rate:g}, it is {signals.step:.1g} of "
        f"it a step (usual: 0.001 to 0.01); {case.course_in_words()}",
        f"Train anew at a rate of {rate:g}.",
        {"train.learning_rate": rate},
    )


def normalisation(case: Case) -> Cause | None:
    """Settings that bring inputs far from a mean of 0 and a spread of 1."""
    if not case.is_poor or not case.is_odd_scale:
        return None
    signals, preprocess = case.signals, case.config.preprocess
    return Cause(
        "normalisation",
        f"what the model is given has a mean of {figure(signals.input_mean)} and a standard "
        f"deviation of {figure(signals.input_std)}, where about 0 and 0.3 to 1 are usual "
        f"(preprocess.mean {list(preprocess.mean)}, preprocess.std "
        f"{[float(f'{value:.3g}') for value in preprocess.std]})",
        "Bring pixels to between -1 and 1.",
        case.usual_scale(),
    )


def augmentation(case: Case) -> Cause | None:
    """Training pictures of which augmentation stronger than usual leaves hardly anything."""
    signals = case.signals
    if not case.is_poor or signals.likeness > _LEAST_LIKENESS:
        return None
    change = {
        f"augment.{field.name}": getattr(_DEFAULTS, field.name)
        for field in fields(AugmentConfig)
        if field.name not in ("plain_share", "flip")
        and getattr(case.config.augment, field.name) > getattr(_DEFAULTS, field.name)
    }
    if not change:  # the pictures are much alike, and that is how little of their own they have
        return None
    answers = ""
    if signals.train and signals.augmented:
        answers = (
            f"; training pictures as they are get {percent(signals.train.balanced.value)} "
            f"balanced accuracy, augmented {percent(signals.augmented.balanced.value)}"
        )
    return Cause(
        "augmentation",
        f"augmented training pictures have {percent(max(signals.likeness, 0.0))} of their own "
        f"originals left, beyond what any two pictures share (usual: 60 % and more){answers}",
        "Set back what is stronger than usual; the report shows what the model is given.",
        change,
    )
