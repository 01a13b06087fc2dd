"""What is left where no setting explains it: labels, pictures, time, size."""

from shlex import quote

from vitreous.data.config import AugmentConfig
from vitreous.diagnosis.case import Case, figure, percent
from vitreous.diagnosis.causes import Cause
from vitreous.diagnosis.head import collapse

#: Share of the way from guessing to all right that lies between training and the score.
_GAP = 0.5
#: Skill on training pictures from which on the training works, whatever the labels.
_WORKS = 0.3
#: Pictures of each class that are few to learn from; and to tell from that labels are wrong.
_FEW_PICTURES, _FEW_TO_TELL = 50, 30
#: Steps and epochs within which nothing has to be learned yet.
_FEW_STEPS, _FEW_EPOCHS = 100, 5
#: Parameters of a model that is surely small.
_FEW_PARAMETERS = 50_000
_DEFAULTS = AugmentConfig()


def labels(case: Case) -> Cause | None:
    """Labels that neither the model nor the simplest classifier finds in new pictures."""
    signals = case.signals
    held_out, simple, course = signals.held_out, signals.thumbnails, signals.course
    if held_out is None or simple is None or case.is_cut_short:
        return None
    if not held_out.is_guessing or not simple.is_guessing or course.steps < _FEW_STEPS:
        return None
    if min(signals.counts) < _FEW_TO_TELL or course.epochs < _FEW_EPOCHS:
        return None
    by_heart = ""
    if signals.train and case.knows > _WORKS:
        by_heart = (
            f"; it learned {percent(signals.train.balanced.value)} of its training pictures by "
            "heart, so the training works"
        )
    elif underfitting(case) or collapse(case):  # which any labels would look like
        return None
    return Cause(
        "labels",
        f"on new pictures it is no better than guessing after {course.epochs:.0f} epochs "
        f"({percent(held_out.balanced.value)} balanced, by chance {percent(held_out.chance)}), "
        f"and neither is a linear classifier of 8x8 pixels ({percent(simple.balanced.value)})"
        f"{by_heart}",
        "Look at a dozen pictures of each class: do they show what their label says?",
        command=f"vitreous check {quote(case.config.data.source)}",
    )


def too_little_data(case: Case) -> Cause | None:
    """All of the training pictures known, few of the others, and few pictures to learn from."""
    counts = case.signals.counts
    typical = sorted(counts)[len(counts) // 2]
    if case.knows - case.scores < _GAP or typical >= _FEW_PICTURES:
        return None
    otherwise, command = _from_others(case)
    return Cause(
        "too_little_data",
        f"{sum(counts):,} training pictures, about {typical} of each class, are known by heart: "
        f"{_gap_in_words(case)}",
        "Collect more pictures, a hundred of each class to begin with"
        + (f"; until then {otherwise}." if otherwise else "."),
        command=command,
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
    otherwise, command = _from_others(case)
    return Cause(
        "overfitting",
        f"{_gap_in_words(case)}{rose}",
        "Augment the training pictures as usual."
        if change
        else f"Collect more pictures{f', or {otherwise}' if otherwise else ''}.",
        change,
        "" if change else command,
    )


def _from_others(case: Case) -> tuple[str, str]:
    """What else can be had from pictures of others, and the command; empty where nothing can."""
    init, ladder = case.config.init, case.config.ladder
    if init is None:
        return "begin with a pretrained model", case.anew("--weights", "auto")
    if ladder and "probe" in ladder.rungs:  # the simplest that is as good as the best was kept
        return "", ""
    begun = ("--config", quote(f"{case.run}/config.toml"), "--weights", quote(init))
    return "learn a new head alone", case.anew(*begun, "--tune", "probe")


def _usual_augmentation(case: Case) -> dict[str, float]:
    """The chances of augmentation that are off, as usual; to flip may be wrong (left and right)."""
    return {
        f"augment.{name}": getattr(_DEFAULTS, name)
        for name in ("affine_chance", "color_chance")
        if getattr(case.config.augment, name) == 0
    }


def _gap_in_words(case: Case) -> str:
    train, held_out = case.signals.train, case.signals.held_out
    assert train is not None
    assert held_out is not None
    return (
        f"balanced accuracy is {percent(train.balanced.value)} on training pictures and "
        f"{percent(held_out.balanced.value)} on those held back (guessing "
        f"{percent(held_out.chance)})"
    )


def _moved(middle: str, last: str, falling: float) -> str:
    if middle == last:
        return f"stayed at {last}"
    return f"{'fell' if falling > 0 else 'rose'} from {middle} to {last}"


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
            command=f"vitreous train --resume {quote(case.run)}",
        )
    falling = course.middle - course.last
    moved = _moved(figure(course.middle), figure(course.last), falling)
    known = f"only {percent(signals.train.balanced.value)} of the training pictures (balanced)"
    if course.steps < _FEW_STEPS or falling > 0.05 * signals.floor:
        longer = {"train.budget_s": 4 * train.budget_s} if train.budget_s else {}
        # Of a budget, epochs are the most there may be.
        if not longer or 4 * course.epochs > train.epochs:
            longer["train.epochs"] = 4 * train.epochs
        return Cause(
            "underfitting",
            f"{course.steps:,} steps, {course.epochs:.3g} epochs, taught it {known}; the training "
            f"loss {moved} in the second half",
            "Train four times as long.",
            longer,
        )
    if (signals.parameters or 0) < _FEW_PARAMETERS:
        return Cause(
            "underfitting",
            f"a model of {signals.parameters:,} parameters knows {known}, and the training loss "
            f"stayed at {figure(course.last)} in the second half",
            "Let the recipe choose the model.",
            command=case.anew(),
        )
    return None
