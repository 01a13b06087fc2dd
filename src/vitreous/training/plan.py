"""How many steps a run has, the learning rate at each of them, and what changed that on the way.

With epochs the number is fixed and no clock matters. With a time budget the speed of this machine
decides: it is measured once, the number of steps follows, and both are written to `plan.json`. A
neighbour on a shared machine may change the speed later; then the rest of the plan is stretched
or shortened, so that the schedule still ends where it should and the budget is kept. Every such
change is written down first, so that a resumed run repeats it step by step without a clock.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vitreous.core.config import from_mapping
from vitreous.errors import ConfigError


@dataclass(frozen=True)
class Stretch:
    """From `first_step` on, progress rises evenly from `progress` to 1 at `total_steps`."""

    first_step: int
    progress: float
    total_steps: int


@dataclass(frozen=True)
class Best:
    """The validation that decided which weights are the best so far.

    Args:
        step: behind which it was made.
        balanced_accuracy: ``None`` where there are no classes.
        loss: on the validation pictures.
    """

    step: int
    balanced_accuracy: float | None
    loss: float

    def beats(self, other: "Best | None") -> bool:
        """Higher balanced accuracy wins, then lower loss; the earlier keeps a tie."""
        if other is None:
            return True
        mine, theirs = (
            (best.balanced_accuracy or 0.0, -best.loss if math.isfinite(best.loss) else -math.inf)
            for best in (self, other)
        )
        return mine > theirs


@dataclass(frozen=True)
class Return:
    """A run went back, because its loss was no number any more.

    Args:
        failed_step: at which that was seen.
        step: to which it went back.
        best: the best validation until then, whose weights were written; ``None`` before any.
    """

    failed_step: int
    step: int
    best: Best | None


#: What the learning rate is of the one before, once a run has gone back.
RATE_AFTER_RETURN = 0.25
#: How often at least, if a run is long enough, a state is kept that it may go back to.
MILESTONES = 10


@dataclass(frozen=True)
class Plan:
    """The steps of a run.

    Args:
        stretches: in order of their first steps; a later one replaces the rest of the one before.
        evaluate_every: steps between validations.
        step_s: measured seconds of one training step; ``None`` where nothing was measured.
        evaluation_s: measured seconds of one validation.
        returns: how often it went back, the last one last.
        accumulate: parts of a batch that memory was enough for, one after the other.
    """

    stretches: tuple[Stretch, ...]
    evaluate_every: int
    step_s: float | None = None
    evaluation_s: float | None = None
    returns: tuple[Return, ...] = ()
    accumulate: int = 1

    def __post_init__(self) -> None:
        if not self.stretches:
            raise ConfigError("a plan has one stretch of steps or more")

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.stretches[-1].total_steps

    @property
    def rate_share(self) -> float:
        """What the learning rate is of the configured one."""
        return RATE_AFTER_RETURN ** len(self.returns)

    @property
    def milestone_every(self) -> int:
        """Steps between the states that a run may go back to: behind some of its validations.

        No clock decides, and no change of the plan, so that a resumed run goes back to the same.
        """
        planned = self.stretches[0].total_steps
        return self.evaluate_every * max(planned // (MILESTONES * self.evaluate_every), 1)

    def total_at(self, step: int) -> int:
        """Steps of the whole run as they were planned at one of them, whatever came later."""
        return self._at(step).total_steps

    @property
    def pace_every(self) -> int:
        """Steps after which the pace is compared with the time left: six times a validation."""
        return max(1, self.evaluate_every // 6)

    def progress(self, step: int) -> float:
        """Share of the schedule that lies behind `step`, from 0 to 1."""
        now = self._at(step)
        share = (step - now.first_step) / max(now.total_steps - now.first_step, 1)
        return now.progress + (1.0 - now.progress) * min(share, 1.0)

    def _at(self, step: int) -> Stretch:
        return next(part for part in reversed(self.stretches) if part.first_step <= step)

    def replanned(self, step: int, total_steps: int) -> "Plan":
        """The same up to `step`, then evenly to the end at `total_steps`."""
        new = Stretch(step, self.progress(step), max(total_steps, step))
        return replace(self, stretches=(*self.stretches, new))

    def returned(self, back: Return) -> "Plan":
        """The same from where a run goes back to, at a lower rate."""
        kept = tuple(part for part in self.stretches if part.first_step <= back.step)
        return replace(self, stretches=kept, returns=(*self.returns, back))

    def to_json(self) -> dict[str, Any]:
        """Plain values for `plan.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """What `to_json` gave."""
        return from_mapping(cls, values)


def plan_epochs(epochs: float, steps_per_epoch: float) -> Plan:
    """A plan for a number of passes over the pictures."""
    total = max(1, round(epochs * steps_per_epoch))
    # Not more than a hundred validations: with few pictures an epoch is only a step or two.
    return Plan((Stretch(0, 0.0, total),), max(math.ceil(steps_per_epoch), total // 100, 1))


def plan_budget(
    seconds: float, step_s: float, evaluation_s: float, steps_per_epoch: float, max_epochs: float
) -> Plan:
    """A plan that fills a number of seconds.

    Validation gets at most a twelfth of the time, and happens at least twenty times where an
    epoch is long.

    Args:
        seconds: left for training and its validations.
        step_s: measured seconds of one training step.
        evaluation_s: measured seconds of one validation.
        steps_per_epoch: training pictures divided by batch size.
        max_epochs: not more than this many passes.
    """
    most = max(1, round(max_epochs * steps_per_epoch))
    rough = max(1, int(seconds / step_s))
    affordable = math.ceil(11 * evaluation_s / step_s)
    every = max(
        min(math.ceil(steps_per_epoch), rough // 20), affordable, min(rough, most) // 100, 1
    )
    total = int(seconds / (step_s + evaluation_s / every))
    return Plan((Stretch(0, 0.0, min(max(total, 1), most)),), every, step_s, evaluation_s)


def keep_budget(
    plan: Plan, step: int, step_s: float, evaluation_s: float, left_s: float, most_steps: float
) -> Plan:
    """The same, or with another number of steps where the machine is slower or faster by now.

    Args:
        plan: as it is.
        step: steps taken.
        step_s: seconds of a step at the present pace.
        evaluation_s: of a validation.
        left_s: left for steps and the validations between them.
        most_steps: not more than these in all.
    """
    with_evaluation_s = step_s + evaluation_s / plan.evaluate_every
    if 0.9 * left_s <= (plan.total_steps - step) * with_evaluation_s <= left_s:
        return plan
    # At least one step, because a run ends with a validation behind a step.
    total = int(min(step + max(int(left_s / with_evaluation_s), 1), most_steps))
    return plan if total == plan.total_steps else plan.replanned(step, total)


def learning_rate_factor(progress: float, warmup: float, final: float) -> float:
    """Linear warm-up, then half a cosine down to `final` (Loshchilov and Hutter 2017).

    Args:
        progress: 0 at the first step, 1 behind the last.
        warmup: share of the run in which the rate rises.
        final: share of the highest rate that is left at the end.
    """
    if progress < warmup:
        return progress / warmup
    share = (progress - warmup) / (1.0 - warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share))
