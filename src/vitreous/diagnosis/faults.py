"""What is plainly wrong, whatever the settings: the loss, the labels' shares, the splits."""

from shlex import quote

from vitreous.diagnosis.case import Case, figure, measured, one_digit, percent
from vitreous.diagnosis.causes import Cause

#: From this share on one label is nearly all of them.
_NEARLY_ALL = 0.85
#: Share of the pictures held back that may be in training before the score is called false.
_LEAKED = 0.05


def non_finite(case: Case) -> Cause | None:
    """A loss that is no number."""
    step = case.signals.course.non_finite_step
    if step is None:
        return None
    tried = case.config.train.learning_rate * case.signals.course.rate_share
    rate = min(case.usual_rate(), one_digit(tried / 4))
    peak = case.signals.course.peak
    before = f"; the highest loss before was {figure(peak)}" if peak is not None else ""
    relative = case.signals.step
    how = f", {measured(relative)} the weights a step" if relative else ""
    return Cause(
        "non_finite",
        f"by step {step} the loss is no number, at a learning rate of {tried:.2g}{how}{before}",
        f"Train anew at a rate of {rate:g}, in float32.",
        {case.rate_setting: rate, "train.precision": "float32"} | _sane_clip(case),
    )


def _sane_clip(case: Case) -> dict[str, float]:
    """Where gradients of any size were let through, the usual limit."""
    return {} if case.config.train.clip_norm <= 10 else {"train.clip_norm": 1.0}


def one_label(case: Case) -> Cause | None:
    """Training pictures that nearly all have the same label, and a model that always says it."""
    counts, held_out = case.signals.counts, case.signals.held_out
    share = max(counts) / sum(counts)
    if (
        share < _NEARLY_ALL
        or held_out is None
        or not case.is_poor
        or held_out.favourite_share < _NEARLY_ALL
    ):
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
    if signals.held_out is None or signals.leaked < _LEAKED * signals.held_out.n:
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
        command=f"vitreous check {quote(case.config.data.source)}",
    )
