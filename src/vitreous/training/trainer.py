"""A training run, top to bottom.

`train` is the whole story: plan, step, validate, keep the best, save. What a step does is in
`learner`, and for pretraining in `pretrain`. It is handed the pictures, a learner, a way to
validate and a run folder; it knows nothing of commands, reports or how scores are made.
"""

import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor

from vitreous.core.console import Console, Task
from vitreous.core.files import read_json, write_json
from vitreous.core.run import RunFolder
from vitreous.core.threads import Aside
from vitreous.data.loader import PictureSet
from vitreous.errors import Interrupted
from vitreous.training.checkpoint import (
    Best,
    has_checkpoint,
    load_newest_checkpoint,
    snapshot,
    write_checkpoint,
)
from vitreous.training.config import RunConfig
from vitreous.training.device import in_same_order
from vitreous.training.ema import Model
from vitreous.training.guard import (
    MOST_IN_A_ROW,
    Diverged,
    in_pieces,
    is_out_of_memory,
    longest_row,
    plan_return,
    what_fits,
    with_less_memory,
)
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
        StorageError: where something can't be written; what was saved before is whole.
        TrainingError: where the loss stays no number, or memory too small.
    """
    # What an earlier sitting decided by its clock is repeated without one.
    keeps_time = config.train.budget_s is not None and not has_checkpoint(run.checkpoints)
    with torch.random.fork_rng(), in_same_order(config.train), _stop_requests() as stopped:
        while True:
            try:
                return _sit(
                    config,
                    pictures,
                    make_learner,
                    validate,
                    run,
                    console,
                    clock,
                    stopped,
                    tensorboard=tensorboard,
                    keeps_time=keeps_time,
                )
            except Diverged as error:
                fault = error.with_traceback(None)  # which holds on to the learner
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                fault = None
            config = _go_on(config, fault, run, console)


def _sit(
    config: RunConfig,
    pictures: PictureSet,
    make_learner: Callable[[RunConfig, PictureSet], Learner[Model]],
    validate: Callable[[Model], ValidScore],
    run: RunFolder,
    console: Console,
    clock: Clock,
    stopped: Callable[[], bool],
    *,
    tensorboard: bool,
    keeps_time: bool,
) -> Learner[Model]:
    """From where the run's files are to the end of the plan."""
    plan = _read_or_make_plan(config, pictures, make_learner, validate, run, clock)
    learner = make_learner(in_pieces(config, plan.accumulate), pictures)
    state = learner.state
    if load_newest_checkpoint(run.checkpoints, state, [back.step for back in plan.returns]):
        console.info(f"going on at step {state.step} of {plan.total_steps}")
    diary = _Diary(learner, plan, run, console, tensorboard)
    with closing(diary), console.task("training", plan.total_steps) as task:
        while state.step < plan.total_steps:
            loss = learner.learn(plan)
            at_end = state.step == plan.total_steps
            diary.note_loss(loss, plan, task)
            if at_end or state.step % plan.evaluate_every == 0:
                diary.note_validation(validate, plan, task)
            if keeps_time and not at_end:
                plan = _keep_budget(plan, config, diary, clock, run)
            diary.save(plan, at_once=at_end or stopped())
            if stopped() and not at_end:
                diary.close()  # an error in saving comes first
                raise Interrupted(
                    f"stopped at step {state.step} of {plan.total_steps}; all of it is saved. "
                    f"Go on with: vitreous {learner.command} --resume {run.whole}"
                )
    return learner


def _go_on(
    config: RunConfig, fault: Diverged | None, run: RunFolder, console: Console
) -> RunConfig:
    """Decide what is done otherwise from the last state on, and write it down.

    Args:
        config: settings of the sitting that has ended.
        fault: that ended it; ``None`` for too little memory.
        run: its folder.
        console: is told.

    Returns:
        Settings to go on with.
    """
    plan = Plan.from_json(read_json(run.plan)) if run.plan.exists() else None
    if fault:
        assert plan is not None
        plan = plan_return(plan, fault, config, run)
        console.warn(
            f"the loss is no number at step {fault.step}: back to step {plan.returns[-1].step}, "
            f"at {plan.rate_share:g} of the learning rate"
        )
    else:
        gc.collect()
        torch.cuda.empty_cache()
        config = with_less_memory(in_pieces(config, plan.accumulate if plan else 1))
        plan = plan and replace(plan, accumulate=config.train.accumulate)
        console.warn(what_fits(config.train))
    if plan is not None:
        write_json(run.plan, plan.to_json())
    return config


class _Diary(Generic[Model]):
    """Writes down what happens: metrics, best and last weights, checkpoints, progress."""

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
        self.score_text = ""
        self.began = time.monotonic() - learner.state.elapsed_s
        self.last_save = time.monotonic()
        self.validation_s = 0.0
        self.restart_pace()
        for back in plan.returns[state.returns :]:
            self.logbook.write({"kind": "returned", **self._where(), **asdict(back)})
            state.returns, state.skipped_in_a_row = state.returns + 1, 0
        if not state.step:
            self._start_saving(plan)

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
        losses = torch.stack(state.losses).tolist()
        state.losses.clear()
        known = [loss for loss in losses if math.isfinite(loss)]
        longest, state.skipped_in_a_row = longest_row(losses, state.skipped_in_a_row)
        rate = learner.rate_behind(state.step, plan)
        line: dict[str, Any] = {**self._where(), "learning_rate": rate}
        if skipped := len(losses) - len(known):
            self.logbook.write({"kind": "skipped", **line, "steps": skipped})
            self.console.warn(
                f"the loss is no number in {skipped} of the {len(losses)} steps up to step "
                f"{state.step}, which change nothing"
            )
        if longest >= MOST_IN_A_ROW:
            self.logbook.write({"kind": "stopped", **line})
            raise Diverged(state.step, rate)
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
        score = validate(state.ema.model)
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
        """Begin to write a checkpoint when it is time; behind the last step, wait for it."""
        self._aside.check()
        state = self.learner.state
        is_milestone = state.step % plan.milestone_every == 0
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
        taken = snapshot(state)

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
        step_s = probe.measure_step_s(plan)
        started = time.monotonic()
        validate(probe.state.ema.model)
        validation_s = time.monotonic() - started
        left = clock.left_s(train.budget_s, validation_s)
        plan = plan_budget(left, step_s, validation_s, steps_per_epoch, train.epochs)
    plan = replace(plan, accumulate=train.accumulate)
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
