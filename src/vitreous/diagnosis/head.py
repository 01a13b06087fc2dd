"""A head that is saturated or dead, and the collapse to one class that comes of it."""

from vitreous.diagnosis.case import Case, figure, one_digit, percent
from vitreous.diagnosis.causes import Cause

#: Size of first outputs from which a softmax is 0 or 1 for nearly every picture, and of what the
#: head is given, from which one step brings it there.
_SATURATED, _LARGE = 20.0, 100.0
#: Share of the answers that is one class, and where a head is dead, too.
_ONE_CLASS, _MOSTLY_ONE = 0.98, 0.7
#: Skill that such answers may still have.
_KNOWS_LITTLE = 0.2
#: Share of units that are off in a dead head, and a gradient that is none.
_OFF, _NO_GRADIENT = 0.9, 1e-6


def head(case: Case) -> Cause | None:
    """A head that is dead, or as sure as can be, before anything is learned."""
    before, init = case.signals.before, case.config.init
    if before is None or not case.is_poor or case.is_odd_scale:
        return None
    if (before.off or 0) >= _OFF:
        return Cause(
            "head",
            f"{percent(before.off or 0)} of the units of a dense layer in the head are off for "
            "every picture with the first weights already, and nothing can bring back a unit that "
            f"is off; {case.course_in_words()}",
            "Leave the head's dense layers out.",
            {"model.head_hidden": []},
        )
    if before.logits < _SATURATED and before.size < _LARGE:
        return None
    return Cause(
        "head",
        f"with the first weights the head is given values of size {figure(before.size)}, where "
        f"about 1 is usual, and its outputs lie {figure(before.logits)} apart; "
        f"{case.course_in_words()}",
        f"Begin with other weights than {init}." if init else "Draw the first weights otherwise.",
        {} if init else {"model.init": "xavier", "model.final_norm": True},
        case.anew("--weights", "none") if init else "",
    )


def dead(case: Case) -> Cause | None:
    """A collapse from which no gradient leads back: what the lecture's model ends in."""
    after, answers = case.signals.after, case.signals.train
    if after is None or answers is None:
        return None
    if answers.favourite_share < _MOSTLY_ONE or case.knows > _KNOWS_LITTLE:
        return None
    if after.gradient > _NO_GRADIENT and (after.off or 0) < _OFF:
        return None
    return _collapsed(case)


def collapse(case: Case) -> Cause | None:
    """One answer for all."""
    answers, held_out = case.signals.train, case.signals.held_out
    if answers is None or held_out is None or case.is_cut_short:
        return None
    if min(answers.favourite_share, held_out.favourite_share) < _ONE_CLASS:
        return None
    return _collapsed(case)


def _collapsed(case: Case) -> Cause:
    # The last weights, not the best ones: those are from before it collapsed.
    answers, after = case.signals.train, case.signals.after
    assert answers is not None
    assert after is not None
    units = ""
    if after.off is not None and after.off > 0.5:
        blocked = after.gradient < _NO_GRADIENT
        units = (
            f"; {percent(after.off)} of the units of a dense layer in the head are off for every "
            f"picture, so that {'nothing' if blocked else 'hardly anything'} before them learns"
        )
    measure = "only" if answers.favourite_share == 1 else "little more than"
    train = case.config.train
    change = {
        case.rate_setting: min(one_digit(train.learning_rate / 10), case.usual_rate()),
        "train.warmup": max(train.warmup, 0.1),
        "train.final_learning_rate": min(train.final_learning_rate, 0.01),
    } | case.usual_scale()
    return Cause(
        "collapse",
        f"it ended answering '{case.classes[answers.favourite]}' for "
        f"{percent(answers.favourite_share)} of the training pictures: "
        f"{percent(answers.accuracy.value)} right is {measure} that class's share{units}",
        "Train anew with a tenth of the rate, reached by a warm-up"
        + (" and pixels around 0." if case.is_odd_scale else "."),
        change,
    )
