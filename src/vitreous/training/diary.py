"""What a run writes down as it goes: metrics, best and last weights, checkpoints, progress.

The trainer says when; nothing here decides how the run goes on.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Generic

import torch
from torch import Tensor

from vitreous.core.console import Console, Task
from vitreous.core.run import RunFolder
from vitreous.core.threads import Aside
from vitreous.training.checkpoint import snapshot, write_checkpoint
from vitreous.training.ema import Model
from vitreous.training.guard import MOST_IN_A_ROW, Diverged, longest_row
from vitreous.training.learner import Learner
from vitreous.training.logbook import Logbook
from vitreous.training.plan import Best, Plan

CHECKPOINT_INTERVAL_S = 60.0
LINES_PER_RUN = 500


@dataclass(frozen=True, kw_only=True)
class ValidScore:
    """What a validation says.

    Args:
        accuracy, balanced_accuracy: from 0 to 1; ``None`` where there are no classes.
        loss: in nats for classes, else in what the learner minimises.
    """

    accuracy: float | None = None
    balanced_accuracy: float | None = None
    loss: float

    def __str__(self) -> str:
        if self.accuracy is None:
            return f"{self.loss:.3f}"
        return f"{self.accuracy:.3f} balanced {self.balanced_accuracy:.3f}"


class Diary(Generic[Model]):
    """Writes down what happens; what was written behind the learner's state is cut off first.

    Args:
        learner: whose steps it tells of.
        plan: of the run; returns that the learner's state doesn't know of are noted.
        run: its folder.
        console: is told of skipped steps.
        tensorboard: write TensorBoard's files too.

    Raises:
        StorageError: also from `save` and `close`, for a checkpoint begun earlier.
    """

    def __init__(
        self,
        learner: Learner[Model],
        plan: Plan,
        run: RunFolder,
        console: Console,
        tensorboard: bool,
    ) -> None:
        self.learner, self.run, self.console = learner, run, console
        state, board = learner.state, run.path / "tensorboard" if tensorboard else None
        self.logbook = Logbook(run.metrics, state.metrics_bytes, board, state.step)
        self._aside = Aside()
        self.score_text, self._has_warned = "", False
        self.began = time.monotonic() - learner.state.elapsed_s
        self.last_save = time.monotonic()
        self.validation_s = 0.0
        self._first_step = state.step
        self.restart_pace()
        for back in plan.returns[state.returns :]:
            line = {"kind": "returned", **self._where(), "failed_step": back.failed_step}
            self.logbook.write(line)
            state.returns, state.skipped_in_a_row, state.best = state.returns + 1, 0, back.best
        if not state.step:
            self._start_saving(plan)

    @property
    def elapsed_s(self) -> float:
        """Seconds worked on this run, over all sittings."""
        return time.monotonic() - self.began

    def note_loss(self, loss: Tensor, plan: Plan, task: Task) -> None:
        """Collect losses; now and then read them, write a line and show the progress."""
        self.learner.state.losses.append(loss)
        step = self.learner.state.step
        if step - self._first_step == self.learner.preparing_steps:
            self.restart_pace()
        # As it was planned when this step was taken: a resumed run knows what came later.
        every = max(1, plan.total_at(step - 1) // LINES_PER_RUN)
        if step % every == 0:
            self._write_losses(plan, task)

    def _write_losses(self, plan: Plan, task: Task) -> None:
        state, learner = self.learner.state, self.learner
        if not state.losses:
            return
        # Reading waits for the device, so it isn't done at every step.
        losses = torch.stack(state.losses).tolist()
        state.losses.clear()
        known = [loss for loss in losses if math.isfinite(loss)]
        longest, state.skipped_in_a_row = longest_row(losses, state.skipped_in_a_row)
        rate = learner.rate_behind(state.step, plan)
        line: dict[str, Any] = {**self._where(), "learning_rate": rate}
        if skipped := len(losses) - len(known):
            self.logbook.write({"kind": "skipped", **line, "steps": skipped})
            if not self._has_warned:
                self.console.warn(
                    f"the loss is no number in {skipped} of the {len(losses)} steps up to step "
                    f"{state.step}; such steps change nothing, and {self.run.metrics} lists them"
                )
            self._has_warned = True
        if longest >= MOST_IN_A_ROW:
            self.logbook.write({"kind": "stopped", **line})
            raise Diverged(state.step, rate, state.best)
        if not known:
            return
        mean = sum(known) / len(known)
        self.logbook.write({"kind": "train", **line, "loss": mean})
        epoch, speed = line["epoch"], learner.config.train.batch_size / self.step_s()
        detail = f"epoch {epoch:.1f}  loss {mean:.3f}  lr {rate:.1e}  {speed:.0f}/s"
        task.update(state.step, f"{detail}{self.score_text}", plan.total_steps)

    def note_validation(
        self, validate: Callable[[Model], ValidScore], plan: Plan, task: Task
    ) -> None:
        """Validate the averaged weights; write them where they are the best so far."""
        self._write_losses(plan, task)
        state = self.learner.state
        started = time.monotonic()
        score = validate(self.learner.averaged())
        now = Best(state.step, score.balanced_accuracy, score.loss)
        is_best = now.beats(state.best)
        if is_best:
            state.best = now
            self.learner.save_weights(self.run.best)
        known = {name: value for name, value in asdict(score).items() if value is not None}
        self.logbook.write({"kind": "valid", **self._where(), **known, "best": is_best})
        self.score_text = f"  valid {score}{' *' if is_best else ''}"
        self.validation_s = time.monotonic() - started
        # The pace of the steps leaves validations out.
        self._pace_began += self.validation_s

    def restart_pace(self) -> None:
        """Measure the seconds of a step anew from here."""
        self._pace_began, self._pace_step = time.monotonic(), self.learner.state.step

    def pace_steps(self) -> int:
        """Steps that the present pace is measured over; none while the first ones prepare."""
        step = self.learner.state.step
        is_preparing = step - self._first_step < self.learner.preparing_steps
        return 0 if is_preparing else step - self._pace_step

    def step_s(self) -> float:
        """Seconds of a step at the present pace."""
        return max(time.monotonic() - self._pace_began, 1e-9) / max(self.pace_steps(), 1)

    def save(self, plan: Plan, at_once: bool) -> None:
        """Begin to write a checkpoint when it is time; behind the last step, wait for it."""
        self._aside.check()
        state = self.learner.state
        is_milestone = state.step % plan.milestone_every == 0 and not state.skipped_in_a_row
        is_time = time.monotonic() - self.last_save >= CHECKPOINT_INTERVAL_S
        if not (at_once or is_milestone or is_time):
            return
        if state.step == plan.total_steps:
            # First, because behind that checkpoint nothing is left to do.
            self.learner.save_weights(self.run.last)
        self._start_saving(plan)
        if state.step == plan.total_steps:
            self._aside.wait()

    def _start_saving(self, plan: Plan) -> None:
        self._aside.wait()  # first, else there were two copies of the state at a time
        state = self.learner.state
        state.metrics_bytes, state.elapsed_s = self.logbook.size, self.elapsed_s
        taken = snapshot(state, self.learner.tensors())

        def write() -> None:
            self.logbook.flush()
            write_checkpoint(self.run.checkpoints, taken, plan.milestone_every)

        self._aside.start(write)
        self.last_save = time.monotonic()

    def close(self) -> None:
        """Wait for what is being written, and close the log."""
        try:
            self._aside.close()
        finally:
            self.logbook.close()

    def _where(self) -> dict[str, float]:
        state, learner = self.learner.state, self.learner
        epoch = state.step * learner.config.train.batch_size / len(learner.pictures)
        return {"step": state.step, "epoch": epoch, "seconds": round(self.elapsed_s, 2)}
