"""From signals to causes: what is plain comes first, then settings, then what is left.

A rule names a cause only on evidence of its own; a run that learned is left alone whatever its
settings. The limits are from trial runs, see docs/experiments/LOG.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from vitreous.diagnosis.case import Case, percent
from vitreous.diagnosis.causes import Cause, Diagnosis
from vitreous.diagnosis.faults import leak, non_finite, one_label
from vitreous.diagnosis.head import collapse, dead, head
from vitreous.diagnosis.outcome import labels, overfitting, too_little_data, underfitting
from vitreous.diagnosis.settings import (
    augmentation,
    no_warmup,
    normalisation,
    rate_too_high,
    rate_too_low,
)

#: No more causes are named.
MOST = 3

Rule = Callable[[Case], Cause | None]

_PLAIN: tuple[Rule, ...] = (non_finite, leak)
_INSIDE: tuple[Rule, ...] = (head, dead)
_SETTINGS: tuple[Rule, ...] = (
    rate_too_high,
    no_warmup,
    rate_too_low,
    normalisation,
    augmentation,
)
#: Of these each explains the next ones.
_OUTCOME: tuple[Rule, ...] = (labels, too_little_data, overfitting, underfitting, collapse)


def judge(case: Case) -> Diagnosis:
    """Name what a run is stuck on.

    Args:
        case: the run.

    Returns:
        At most three causes, the likeliest first; none where nothing is wrong, or nothing told.
    """
    return Diagnosis(seen(case), tuple(_causes(case))[:MOST])


def _causes(case: Case) -> Iterator[Cause]:
    plain = _found(case, _PLAIN)
    yield from plain
    if any(cause.kind != "leak" for cause in plain):
        return
    named = _found(case, _INSIDE)[:1] + _found(case, _SETTINGS) + _found(case, (one_label,))
    yield from named or _found(case, _OUTCOME)[:1]


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
    part = f"Looked at is its {case.part}, which was trained last. " if case.part else ""
    if train is None or held_out is None:
        return (
            f"{part}It stopped at step {course.steps} of {course.total_steps} and left no weights."
        )
    stopped = (
        f"Stopped at step {course.steps} of {course.total_steps}. " if case.is_cut_short else ""
    )
    return (
        f"{part}{stopped}Balanced accuracy {percent(train.balanced.value)} on {train.n} training "
        f"pictures, {percent(held_out.balanced.value)} on {held_out.n} held back; guessing would "
        f"give {percent(held_out.chance)}."
    )
