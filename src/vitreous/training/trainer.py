"""A training run, top to bottom.

`train` is the whole story: plan, step, validate, keep the best, save. What a step does is in
`learner`, and for pretraining in `pretrain`. It is handed the pictures, a learner, a way to
validate and a run folder; it knows nothing of commands, reports or how scores are made.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic

import torch
from torch import Tensor

from vitreous.core.console import Console, Task
from vitreous.core.files import read_json, write_json
from vitreous.core.run import RunFolder
from vitreous.data.loader import PictureSet
from vitreous.errors import Interrupted, TrainingError
from vitreous.training.checkpoint import Best, load_newest_checkpoint, save_checkpoint
from vitreous.training.config import RunConfig
from vitreous.training.ema import Model
from vitreous.training.follow import share
from vitreous.training.learner import Learner
from vitreous.training.logbook import Logbook
from vitreous.training.plan import Plan, plan_budget, plan_epochs

CHECKPOINT_INTERVAL_S = 60.0
LINES_PER_RUN = 500
#: With a budget, how often the pace is compared with the time left.
CHECKS_PER_VALIDATION = 6


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


@dataclass(frozen=True)
class Clock:
    """When the command began, and what has to be done before it may end.

    Args:
        started: value of `time.monotonic` at the command's start.
        closing_validations: work behind training, counted in validations.
        closing_s: further seconds behind training.
    """

    started: float
    closing_validations: float = 2.2
    closing_s: float = 6.0

    def left_s(self, budget_s: float, validation_s: float) -> float:
        """Seconds of the budget that training may still take."""
        elapsed = time.monotonic() - self.started
        return budget_s - elapsed - self.closing_s - self.closing_validations * validation_s


def train(
    config: RunConfig,
    pictures: PictureSet,
    make_learner: Callable[[RunConfig, PictureSet], Learner[Model]],
    validate: Callable[[Model], ValidScore],
    run: RunFolder,
    console: Console,
    clock: Clock,
    tensorboard: bool = False,
) -> Learner[Model]:
    """Train to the end of the plan, from the newest checkpoint where there is one.

    Args:
        config: every setting.
        pictures: to learn from.
        make_learner: what a step does; called once more where steps are timed first.
        validate: scores a model on the validation pictures.
        run: where everything is written.
        console: where progress is shown.
        clock: when the command began.
        tensorboard: write TensorBoard's files too.

    Returns:
        The learner as it is at the end.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
        TrainingError: where the loss is no longer a number.
    """
    budget_s = config.train.budget_s
    with torch.random.fork_rng(), _stop_requests() as stopped:
        plan = _read_or_make_plan(config, pictures, make_learner, validate, run, clock)
        learner = make_learner(config, pictures)
        resumed = load_newest_checkpoint(run.checkpoints, learner.state)
        share(learner)
        diary = _Diary(learner, run, tensorboard)
        state = learner.state
        if resumed:
            console.info(f"going on at step {state.step} of {plan.total_steps}")
        with closing(diary), console.task("training", plan.total_steps) as task:
            while state.step < plan.total_steps:
                loss = learner.learn(plan)
                at_end = state.step == plan.total_steps
                diary.note_loss(loss, plan, task)
                if at_end or state.step % plan.evaluate_every == 0:
                    diary.note_validation(validate, plan, task)
                if budget_s is not None and not resumed and not at_end:
                    plan = _keep_budget(plan, config, diary, clock, run)
                diary.save(plan, at_once=at_end or stopped())
                if stopped() and not at_end:
                    raise Interrupted(
                        f"stopped at step {state.step} of {plan.total_steps}; all of it is saved. "
                        f"Go on with: vitreous {learner.command} --resume {run.whole}"
                    )
    return learner


class _Diary(Generic[Model]):
    """Writes down what happens: metrics, best and last weights, checkpoints, progress."""

    def __init__(self, learner: Learner[Model], run: RunFolder, tensorboard: bool) -> None:
        self.learner, self.run = learner, run
        board = run.path / "tensorboard" if tensorboard else None
        self.logbook = Logbook(run.metrics, learner.state.metrics_bytes, board)
        self.score_text = ""
        self.began = time.monotonic() - learner.state.elapsed_s
        self.last_save = time.monotonic()
        self.validation_s = 0.0
        self.restart_pace()

    @property
    def elapsed_s(self) -> float:
        """Seconds worked on this run, over all sittings."""
        return time.monotonic() - self.began

    def note_loss(self, loss: Tensor, plan: Plan, task: Task) -> None:
        """Collect losses; now and then read them, write a line and show the progress."""
        self.learner.state.losses.append(loss)
        every = max(1, plan.total_steps // LINES_PER_RUN)
        if self.learner.state.step % every == 0:
            self._write_losses(plan, task)

    def _write_losses(self, plan: Plan, task: Task) -> None:
        state, learner = self.learner.state, self.learner
        if not state.losses:
            return
        # Reading waits for the device, so it isn't done at every step.
        losses = [loss.item() for loss in state.losses]
        mean, count = sum(losses) / len(losses), len(losses)
        state.losses.clear()
        rate = learner.learning_rate(plan.progress(state.step))
        if not math.isfinite(mean):
            self.logbook.write({"kind": "stopped", **self._where(), "learning_rate": rate})
            raise TrainingError(
                f"the loss is not a number within the {count} steps up to step {state.step}, at "
                f"learning rate {rate:.1e}: try --set train.learning_rate={rate / 4:.0e} or "
                f"--set train.precision=float32; {self.run.whole} keeps the last good state, and "
                f"vitreous diagnose {self.run.whole} tells more"
            )
        line = {"kind": "train", **self._where(), "loss": mean, "learning_rate": rate}
        self.logbook.write(line)
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
        """Steps that the present pace is measured over."""
        return self.learner.state.step - self._pace_step

    def step_s(self) -> float:
        """Seconds of a step at the present pace."""
        return max(time.monotonic() - self._pace_began, 1e-9) / max(self.pace_steps(), 1)

    def save(self, plan: Plan, at_once: bool) -> None:
        """Write a checkpoint when it is time."""
        if not at_once and time.monotonic() - self.last_save < CHECKPOINT_INTERVAL_S:
            return
        state = self.learner.state
        if not all(loss.isfinite() for loss in state.losses):
            return  # not a state to go on from; the next line in the log ends the run
        state.metrics_bytes, state.elapsed_s = self.logbook.size, self.elapsed_s
        save_checkpoint(self.run.checkpoints, state, self.learner.tensors())
        if state.step == plan.total_steps:
            self.learner.save_weights(self.run.last)
        self.last_save = time.monotonic()

    def close(self) -> None:
        """Close the log."""
        self.logbook.close()

    def _where(self) -> dict[str, float]:
        state, learner = self.learner.state, self.learner
        epoch = state.step * learner.config.train.batch_size / len(learner.pictures)
        return {"step": state.step, "epoch": epoch, "seconds": round(self.elapsed_s, 2)}


def _read_or_make_plan(
    config: RunConfig,
    pictures: PictureSet,
    make_learner: Callable[[RunConfig, PictureSet], Learner[Model]],
    validate: Callable[[Model], ValidScore],
    run: RunFolder,
    clock: Clock,
) -> Plan:
    """The plan written down by an earlier sitting, or a new one."""
    if run.plan.exists():
        return Plan.from_json(read_json(run.plan))
    train = config.train
    steps_per_epoch = len(pictures) / train.batch_size
    plan = plan_epochs(train.epochs, steps_per_epoch)
    if train.budget_s is not None:
        probe = make_learner(config, pictures)
        share(probe)
        step_s = probe.measure_step_s(plan)
        started = time.monotonic()
        validate(probe.averaged())
        validation_s = time.monotonic() - started
        left = clock.left_s(train.budget_s, validation_s)
        plan = plan_budget(left, step_s, validation_s, steps_per_epoch, train.epochs)
    write_json(run.plan, plan.to_json())
    return plan


def _keep_budget(
    plan: Plan, config: RunConfig, diary: _Diary, clock: Clock, run: RunFolder
) -> Plan:
    """Change the number of steps where the machine has become slower or faster than measured."""
    train, step = config.train, diary.learner.state.step
    assert train.budget_s is not None
    validation_s = diary.validation_s or plan.evaluation_s or 0.0
    if diary.pace_steps() < max(1, plan.evaluate_every // CHECKS_PER_VALIDATION):
        return plan
    with_validation_s = diary.step_s() + validation_s / plan.evaluate_every
    diary.restart_pace()
    left = clock.left_s(train.budget_s, validation_s)
    needed = (plan.total_steps - step) * with_validation_s
    most = max(1, round(train.epochs * len(diary.learner.pictures) / train.batch_size))
    if 0.9 * left <= needed <= left or (needed < left and plan.total_steps == most):
        return plan
    # At least one step, because a run ends with a validation behind a step.
    total = min(step + max(int(left / with_validation_s), 1), most)
    if total == plan.total_steps:
        return plan
    plan = plan.replanned(step, total)
    write_json(run.plan, plan.to_json())
    return plan


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Catch Ctrl-C and SIGTERM once, to stop between two steps; a second one stops at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    before: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def note(number: int, frame: object) -> None:
        requested.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
