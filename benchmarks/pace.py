"""How a peer's loop measures its pace and keeps its minutes, as the product does with its own."""

import time
from statistics import median

from vitreous.training.plan import Plan

#: How often the pace is compared with the time left, as in the product.
CHECKS_PER_VALIDATION = 6


class Pace:
    """Seconds of a step, from a few steps that are taken for nothing else, as in the product."""

    def __init__(self) -> None:
        self._durations: list[float] = []
        self._last = time.perf_counter()

    def note_step(self) -> None:
        """A step has ended."""
        now = time.perf_counter()
        self._durations.append(now - self._last)
        self._last = now

    @property
    def is_known(self) -> bool:
        """Whether there were enough steps."""
        return len(self._durations) >= 12 or sum(self._durations[2:]) >= 4.0

    @property
    def step_s(self) -> float:
        """Their median; the first steps allocate memory and choose kernels."""
        return median(self._durations[2:] or self._durations)


def keep_budget(
    plan: Plan, step: int, step_s: float, validation_s: float, left_s: float, most_steps: float
) -> Plan:
    """Change the number of steps where the machine has become slower or faster.

    Args:
        plan: as it is.
        step: steps taken.
        step_s: seconds of a step at the present pace.
        validation_s: of a validation.
        left_s: left for steps and the validations between them.
        most_steps: not more than these in all.
    """
    with_validation_s = step_s + validation_s / plan.evaluate_every
    if 0.9 * left_s <= (plan.total_steps - step) * with_validation_s <= left_s:
        return plan
    total = int(min(step + max(int(left_s / with_validation_s), 1), most_steps))
    return plan if total == plan.total_steps else plan.replanned(step, total)
