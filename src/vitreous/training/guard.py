"""What a run does when it can't go on as it was: a loss that is no number, too little memory.

A single bad step changes nothing (`learner`). After several in a row the run goes back to its last
milestone, at a lower learning rate; where memory is too small, it goes on with smaller pieces of
each batch. Both are a matter of a new plan, written down before anything else is done: going on
from there is a resume like any other, and a run killed in between ends in the same bits.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from shlex import quote

from vitreous.core.run import RunFolder
from vitreous.errors import TrainingError
from vitreous.training.checkpoint import newest_milestone
from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.plan import Best, Plan, Return

#: Steps in a row whose loss is no number, behind which the weights are no good.
MOST_IN_A_ROW = 5
#: How often a run goes back.
MOST_RETURNS = 2
#: How PyTorch says so on a CPU, and cuBLAS and cuDNN, where there is no exception for it.


class Diverged(Exception):
    """Caught by the trainer: too many steps in a row had no number for a loss.

    Args:
        step: at which that was seen.
        rate: learning rate there.
        best: the best validation until then.
    """

    def __init__(self, step: int, rate: float, best: Best | None) -> None:
        super().__init__(step, rate, best)
        self.step, self.rate, self.best = step, rate, best


def longest_row(losses: Sequence[float], before: int) -> tuple[int, int]:
    """The longest row of losses that are no numbers, and the one at the end.

    Args:
        losses: of steps.
        before: length of the row that they may go on with.

    Example:
        >>> longest_row([math.nan, 0.5, math.inf, math.nan, math.nan, 0.4, math.nan], before=1)
        (3, 1)
    """
    longest = row = before
    for loss in losses:
        row = 0 if math.isfinite(loss) else row + 1
        longest = max(longest, row)
    return longest, row


def plan_return(plan: Plan, fault: Diverged, config: RunConfig, run: RunFolder) -> Plan:
    """The plan from the last good state on, at a lower rate.

    Raises:
        TrainingError: where the run has gone back often enough, or can't.
    """
    target = newest_milestone(run.checkpoints, fault.step, plan.milestone_every)
    if len(plan.returns) < MOST_RETURNS and target is not None:
        return plan.returned(Return(fault.step, target, fault.best))
    past = [f"{back.failed_step} (back to {back.step})" for back in plan.returns]
    tried = f", as it was by step {' and '.join(past)}, each time at a lower rate" if past else ""
    rate = config.train.learning_rate * plan.rate_share / 4
    # A ladder's low-rank updates have a rate of their own.
    is_lora = run.path != run.whole and run.path.name == "lora"
    setting = "ladder.lora_learning_rate" if is_lora else "train.learning_rate"
    raise TrainingError(
        f"the loss is not a number in {MOST_IN_A_ROW} steps in a row up to step {fault.step}, at "
        f"learning rate {fault.rate:.1e}{tried}: try --set {setting}={rate:.0e} or "
        f"--set train.precision=float32; {run.whole} keeps the last good state, and "
        f"vitreous diagnose {quote(str(run.whole))} tells more"
    )


class TooLittleMemory(TrainingError):
    """A step that memory is too small for; where one process trains, the trainer divides its batch.

    Args:
        train: settings of the step.
    """

    def __init__(self, train: TrainConfig) -> None:
        super().__init__(
            f"memory is too small for a step with {_piece(train)} pictures at a time; what was "
            f"saved is whole: try another run with --set train.accumulate={2 * train.accumulate}, "
            "or a smaller --model or --image-size"
        )


def in_pieces(config: RunConfig, accumulate: int) -> RunConfig:
    """The same with batches in at least so many pieces, one after the other."""
    train = config.train
    return replace(config, train=replace(train, accumulate=max(train.accumulate, accumulate)))


def with_less_memory(config: RunConfig) -> RunConfig:
    """The same steps in twice as many pieces.

    Raises:
        TrainingError: where a piece can't be smaller.
    """
    train = config.train
    most = train.batch_size // train.shards
    if train.accumulate >= most:
        raise TrainingError(
            f"memory is too small for {_piece(train)} of these pictures at once: try a smaller "
            "--model or --image-size, or --set train.grad_checkpointing=true"
        )
    return in_pieces(config, min(2 * train.accumulate, most))


def what_fits(train: TrainConfig) -> str:
    """What is tried next, for whoever watches."""
    return (
        f"memory is too small for so many pictures at once: going on with {_piece(train)} at a "
        f"time, {train.accumulate} times a step, for the same batches of {train.batch_size} "
        f"(as --set train.accumulate={train.accumulate} would)"
    )


def _piece(train: TrainConfig) -> int:
    return math.ceil(train.batch_size / train.accumulate)
