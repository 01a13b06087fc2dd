"""From signals to causes: what is plain comes first, then settings, then what is left.

A rule names a cause only on evidence of its own; a run that learned is left alone whatever its
settings. The limits are from trial runs, see docs/experiments/LOG.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from vitreous.data.config import AugmentConfig
from vitreous.diagnosis.case import Case, figure, one_digit, percent
from vitreous.diagnosis.causes import Cause, Diagnosis

#: No more causes are named.
MOST = 3
#: Steps relative to the weights: above the first nothing learns, above the second it takes care,
#: below the third nothing moves.
_WILD_STEP, _HIGH_STEP, _FAINT_STEP = 0.1, 0.02, 2e-4
#: A loss that rose so many times above its start.
_ROSE = 2.0
#: Share of the distance between guessing and all right that lies between training and the score.
_GAP = 0.5
_FEW_STEPS, _FEW_PICTURES, _FEW_TO_TELL = 100, 50, 30
_DEFAULTS = AugmentConfig()

Rule = Callable[[Case], Cause | None]


def judge(case: Case) -> Diagnosis:
    """Name what a run is stuck on.

    Args:
        case: the run.

    Returns:
        At most three causes, the likeliest first; none where nothing is wrong, or nothing told.
    """
    return Diagnosis(seen(case), tuple(_causes(case))[:MOST])


def _causes(case: Case) -> Iterator[Cause]:
    plain = _found(case, (non_finite, one_label, leak))
    yield from plain
    if any(cause.kind != "leak" for cause in plain):
        return
    inside = _found(case, (head, dead))
    settings = _found(case, (rate_too_high, no_warmup, rate_too_low, normalisation, augmentation))
    yield from (*inside, *settings)
    if not inside and not settings:
        # Each of these explains the next ones.
        outcome = (labels, too_little_data, overfitting, underfitting, collapse)
        yield from _found(case, outcome)[:1]


def _found(case: Case, rules: tuple[Rule, ...]) -> list[Cause]:
    causes = [cause for rule in rules if (cause := rule(case))]
    return [
        replace(cause, command=case.with_change(cause.change)) if cause.change else cause
        for cause in causes
    ]


def seen(case: Case) -> str:
    """Where a run stands, in a sentence."""
    train, held_out = case.signals.train, case.signals.held_out
    course = case.signals.course
    if train is None or held_out is None:
        return f"It stopped at step {course.steps} of {course.total_steps} and left no weights."
    stopped = f"Stopped at step {course.steps} of {course.total_steps}. " if case.is_cut_short else ""
    return (
        f"{stopped}Balanced accuracy {percent(train.balanced.value)} on {train.n} training "
        f"pictures, {percent(held_out.balanced.value)} on {held_out.n} held back; guessing would "
        f"give {percent(held_out.chance)}."
    )


def non_finite(case: Case) -> Cause | None:
    """A loss that is no number."""
    step = case.signals.course.non_finite_step
    if step is None:
        return None
    train, rate = case.config.train, case.usual_rate()
    peak = case.signals.course.peak
    before = f"; the highest loss before was {figure(peak)}" if peak is not None else ""
    relative = case.signals.step
    how = f", which moves the weights by {percent(relative)} of themselves a step" if relative else ""
    return Cause(
        "non_finite",
        f"by step {step} the loss is no number, at a learning rate of {train.learning_rate:g}{how}"
        f"{before}",
        f"Train anew at a rate of {min(rate, one_digit(train.learning_rate / 4)):g}, in float32.",
        {
            "train.learning_rate": min(rate, one_digit(train.learning_rate / 4)),
            "train.precision": "float32",
        }
        | _sane_clip(case),
    )


def _sane_clip(case: Case) -> dict[str, float]:
    """Where gradients of any size were let through, the usual limit."""
    return {} if case.config.train.clip_norm <= 10 else {"train.clip_norm": 1.0}


def one_label(case: Case) -> Cause | None:
    """Training pictures that nearly all have the same label, and a model that always says it."""
    counts, held_out = case.signals.counts, case.signals.held_out
    share = max(counts) / sum(counts)
    if share < 0.85 or held_out is None or not case.is_poor or held_out.favourite_share < 0.9:
        return None
    name = case.classes[counts.index(max(counts))]
    weighted = case.config.train.class_weights == "balanced"
    return Cause(
        "one_label",
        f"{max(counts):,} of {sum(counts):,} training pictures are '{name}' ({percent(share)}), "
        f"and so are {percent(held_out.favourite_share)} of the answers",
        "Look whether the labels are right, and collect more pictures of the other classes"
        + ("." if weighted else "; until then let every class count alike."),
        {} if weighted else {"train.class_weights": "balanced"},
    )


def leak(case: Case) -> Cause | None:
    """Pictures held back that were learned from."""
    signals = case.signals
    if signals.held_out is None or signals.leaked < 0.05 * signals.held_out.n:
        return None
    right = ""
    if signals.right_if_leaked is not None and signals.right_if_not is not None:
        right = (
            f"; it is right for {percent(signals.right_if_leaked)} of those and for "
            f"{percent(signals.right_if_not)} of the others, which is the true score"
        )
    return Cause(
        "leak",
        f"{signals.leaked} of the {signals.held_out.n} pictures that it is scored on are among "
        f"the training pictures too{right}",
        "Let the doctor find them, and take them out of one of the two.",
        command=f"vitreous check {case.config.data.source}",
    )


def head(case: Case) -> Cause | None:
    """A head whose first answers are already as sure as can be."""
    before, course = case.signals.before, case.signals.course
    if before is None or before.logits < 20 or not case.is_poor or _odd_scale(case):
        return None
    init = case.config.init
    source = f"the weights it began with, {init}, are far too large" if init else "large weights"
    return Cause(
        "head",
        f"before the first step the outputs lie {figure(before.logits)} apart, where 1 to 5 is "
        f"usual, and the loss began at {figure(course.first or 0)}: {source}",
        "Begin without these weights." if init else "Begin with other first weights.",
        {} if init else {"model.init": "xavier"},
        case.anew("--weights", "none") if init else "",
    )


def dead(case: Case) -> Cause | None:
    """A collapse from which no gradient leads back: what the lecture's model ends in."""
    after, answers = case.signals.after, case.signals.train
    if after is None or answers is None or answers.favourite_share < 0.98:
        return None
    if after.gradient > 1e-6 and (after.off or 0) < 0.9:
        return None
    return _collapsed(case)


def collapse(case: Case) -> Cause | None:
    """One answer for all."""
    answers, held_out = case.signals.train, case.signals.held_out
    if answers is None or held_out is None or case.is_cut_short:
        return None
    if min(answers.favourite_share, held_out.favourite_share) < 0.98:
        return None
    return _collapsed(case)


def _collapsed(case: Case) -> Cause:
    held_out, after = case.signals.held_out, case.signals.after
    assert held_out is not None and after is not None
    units = ""
    if after.off is not None and after.off > 0.5:
        blocked = after.gradient < 1e-6
        units = (
            f"; {percent(after.off)} of the units of a dense layer in the head are off for every "
            f"picture, so that {'nothing' if blocked else 'hardly anything'} before them learns"
        )
    train = case.config.train
    change = {
        "train.learning_rate": min(one_digit(train.learning_rate / 10), case.usual_rate()),
        "train.warmup": max(train.warmup, 0.1),
        "train.final_learning_rate": min(train.final_learning_rate, 0.01),
    } | _usual_scale(case)
    return Cause(
        "collapse",
        f"it answers '{case.classes[held_out.favourite]}' for "
        f"{percent(held_out.favourite_share)} of the pictures held back: "
        f"{percent(held_out.accuracy.value)} right is only that class's share{units}",
        "Train anew with a tenth of the rate, reached by a warm-up"
        + (" and pixels around 0." if _odd_scale(case) else "."),
        change,
    )


def rate_too_high(case: Case) -> Cause | None:
    """Steps as large as the weights, or a loss that a high rate drove up."""
    step, train = case.signals.step, case.config.train
    if not case.is_poor or step is None or case.signals.course.steps < _FEW_STEPS / 5:
        return None
    tame_warmup = train.warmup == 0 and step <= _WILD_STEP
    if step <= _WILD_STEP and (step <= _HIGH_STEP or case.rise < _ROSE or tame_warmup):
        return None
    rate = case.usual_rate()
    return Cause(
        "rate_too_high",
        f"at the highest rate, {train.learning_rate:g}, each step moves the weights by "
        f"{percent(step)} of their size (usual: 0.1 to 1 %); {case.course_in_words()}",
        f"Train anew at a rate of {rate:g}.",
        {"train.learning_rate": rate} | ({"train.warmup": 0.1} if train.warmup == 0 else {}),
    )


def no_warmup(case: Case) -> Cause | None:
    """A loss that jumped because the first steps were the largest."""
    step, train = case.signals.step, case.config.train
    if train.warmup > 0 or not case.is_poor or case.rise < _ROSE or step is None:
        return None
    if step > _WILD_STEP or case.signals.course.steps < _FEW_STEPS / 5 or _odd_scale(case):
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
    if signals.step > _FAINT_STEP or signals.moved > 0.02 or signals.course.steps < _FEW_STEPS / 5:
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
    """Inputs far from a mean of 0 and a spread of 1."""
    if not case.is_poor or not _odd_scale(case):
        return None
    signals, preprocess = case.signals, case.config.preprocess
    return Cause(
        "normalisation",
        f"what the model is given has a mean of {figure(signals.input_mean)} and a standard "
        f"deviation of {figure(signals.input_std)}, where about 0 and 0.3 to 1 are usual "
        f"(preprocess.mean {list(preprocess.mean)}, preprocess.std "
        f"{[float(f'{value:.3g}') for value in preprocess.std]})",
        "Bring pixels to between -1 and 1.",
        _usual_scale(case),
    )


def _odd_scale(case: Case) -> bool:
    signals = case.signals
    return not 0.05 < signals.input_std < 8 or abs(signals.input_mean) > 8


def _usual_scale(case: Case) -> dict[str, list[float]]:
    """Pixels from -1 to 1, where they are far from it."""
    half = [0.5, 0.5, 0.5]
    return {"preprocess.mean": half, "preprocess.std": half} if _odd_scale(case) else {}


def augmentation(case: Case) -> Cause | None:
    """Training pictures of which hardly anything is left."""
    signals = case.signals
    if not case.is_poor or signals.likeness > 0.3:
        return None
    answers = ""
    if signals.train and signals.augmented:
        answers = (
            f"; training pictures as they are get {percent(signals.train.balanced.value)} "
            f"balanced accuracy, augmented {percent(signals.augmented.balanced.value)}"
        )
    change = {
        f"augment.{field.name}": getattr(_DEFAULTS, field.name)
        for field in fields(AugmentConfig)
        if field.name not in ("plain_share", "flip")
        and getattr(case.config.augment, field.name) > getattr(_DEFAULTS, field.name)
    }
    return Cause(
        "augmentation",
        f"augmented training pictures have {percent(max(signals.likeness, 0.0))} of their own "
        f"originals left, beyond what any two pictures share (usual: 60 % and more){answers}",
        "Set back what is stronger than usual; the report shows what the model is given.",
        change,
    )


def labels(case: Case) -> Cause | None:
    """Labels that neither the model nor the simplest classifier finds in new pictures."""
    signals = case.signals
    held_out, simple, course = signals.held_out, signals.thumbnails, signals.course
    if held_out is None or simple is None or case.is_cut_short:
        return None
    if not held_out.is_guessing or not simple.is_guessing or course.steps < _FEW_STEPS:
        return None
    if min(signals.counts) < _FEW_TO_TELL or course.epochs < 5:
        return None
    by_heart = (
        f"; it learned {percent(signals.train.balanced.value)} of its training pictures by heart, "
        "so the training works"
        if signals.train and case.knows > 0.3
        else ""
    )
    return Cause(
        "labels",
        f"on new pictures it is no better than guessing after {course.epochs:.0f} epochs "
        f"({percent(held_out.balanced.value)} balanced, by chance {percent(held_out.chance)}), "
        f"and neither is a linear classifier of 8x8 pixels ({percent(simple.balanced.value)})"
        f"{by_heart}",
        "Look at a dozen pictures of each class: do they show what their label says?",
        command=f"vitreous check {case.config.data.source}",
    )


def too_little_data(case: Case) -> Cause | None:
    """All of the training pictures known, few of the others, and few pictures to learn from."""
    counts = case.signals.counts
    typical = sorted(counts)[len(counts) // 2]
    if case.knows - case.scores < _GAP or typical >= _FEW_PICTURES:
        return None
    return Cause(
        "too_little_data",
        f"{sum(counts):,} training pictures, about {typical} of each class, are known by heart: "
        f"{_gap_in_words(case)}",
        "Collect more pictures, a hundred of each class to begin with; until then begin with a "
        "pretrained model.",
        command=case.anew("--weights", "auto"),
    )


def overfitting(case: Case) -> Cause | None:
    """Far more known of training pictures than of others."""
    if case.knows - case.scores < _GAP:
        return None
    course, change = case.signals.course, _usual_augmentation(case)
    rose = ""
    if course.valid_lowest is not None and course.valid_last is not None:
        rose = (
            f"; the validation loss was lowest in epoch {course.valid_lowest_epoch:.0f} of "
            f"{course.epochs:.0f} ({figure(course.valid_lowest)}) and ended at "
            f"{figure(course.valid_last)}"
        )
    return Cause(
        "overfitting",
        f"{_gap_in_words(case)}{rose}",
        "Augment the training pictures as usual."
        if change
        else "Collect more pictures, or begin with a pretrained model.",
        change,
        "" if change else case.anew("--weights", "auto"),
    )


def _usual_augmentation(case: Case) -> dict[str, float]:
    """The chances of augmentation that are off, as usual."""
    return {
        f"augment.{name}": getattr(_DEFAULTS, name)
        for name in ("flip", "affine_chance", "color_chance")
        if getattr(case.config.augment, name) == 0
    }


def _gap_in_words(case: Case) -> str:
    train, held_out = case.signals.train, case.signals.held_out
    assert train is not None and held_out is not None
    return (
        f"balanced accuracy is {percent(train.balanced.value)} on training pictures and "
        f"{percent(held_out.balanced.value)} on those held back (guessing "
        f"{percent(held_out.chance)})"
    )


def underfitting(case: Case) -> Cause | None:
    """Not even the training pictures are known, and steps or size explain it."""
    signals, course, train = case.signals, case.signals.course, case.config.train
    if signals.train is None or case.knows >= 0.5 or course.last is None or course.middle is None:
        return None
    if case.is_cut_short:
        return Cause(
            "underfitting",
            f"it was stopped at step {course.steps:,} of {course.total_steps:,}, and "
            f"{case.course_in_words()}",
            "Go on with it.",
            command=f"vitreous train --resume {case.run}",
        )
    falling = course.middle - course.last
    known = f"only {percent(signals.train.balanced.value)} of the training pictures (balanced)"
    if course.steps < _FEW_STEPS or falling > 0.05 * signals.floor:
        longer = (
            {"train.budget_s": 4 * train.budget_s}
            if train.budget_s
            else {"train.epochs": 4 * train.epochs}
        )
        return Cause(
            "underfitting",
            f"{course.steps:,} steps, {course.epochs:.3g} epochs, taught it {known}; the training "
            f"loss fell from {figure(course.middle)} to {figure(course.last)} in the second half",
            "Train four times as long.",
            longer,
        )
    if (signals.parameters or 0) < 50_000:
        return Cause(
            "underfitting",
            f"a model of {signals.parameters:,} parameters knows {known}, and the training loss "
            f"stayed at {figure(course.last)} in the second half",
            "Let the recipe choose the model.",
            command=case.anew(),
        )
    return None
