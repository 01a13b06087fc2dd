"""A training run, top to bottom.

`train` is the whole story: plan, step, validate, note the best, save. What a step does is in
`learner`, and for pretraining in `pretrain`. It is handed the pictures, a learner, a way to
validate and a run folder; it knows nothing of commands, reports or how scores are made.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from shlex import quote
from typing import Any

from vitreous.core.console import Console
from vitreous.core.files import read_record, write_json
from vitreous.core.rng import streams_kept
from vitreous.core.run import RunFolder
from vitreous.data.loader import PictureSet
from vitreous.errors import ConfigError, Interrupted
from vitreous.training.checkpoint import has_checkpoint, load_newest_checkpoint
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, free_memory, in_same_order
from vitreous.training.diary import Diary, ValidScore
from vitreous.training.distributed import team_for
from vitreous.training.ema import Model
from vitreous.training.follow import share
from vitreous.training.guard import (
    Diverged,
    TooLittleMemory,
    in_pieces,
    plan_return,
    what_fits,
    with_less_memory,
)
from vitreous.training.learner import Learner
from vitreous.training.plan import Plan, keep_budget, plan_budget, plan_epochs


@dataclass(frozen=True)
class Clock:
    """When the command began, and what has to be done before it may end.

    Args:
        started: value of `time.monotonic` at the command's start.
        closing_validations: work behind training, counted in validations.
        closing_s: further seconds behind training.
        share: of what comes behind the whole run, where trainings share its time.
    """

    started: float
    closing_validations: float = 2.2
    closing_s: float = 6.0
    share: float = 1.0

    def left_s(self, budget_s: float, validation_s: float) -> float:
        """Seconds of the budget that training may still take."""
        elapsed = time.monotonic() - self.started
        closing_s = self.share * self.closing_s + self.closing_validations * validation_s
        return budget_s - elapsed - closing_s


@dataclass(frozen=True)
class Sitting:
    """A process at work on a run.

    Args:
        console: where progress is shown.
        clock: when the command began.
        tensorboard: write TensorBoard's files too.

    Raises:
        ConfigError: for TensorBoard where it isn't installed, before there is any work to lose.
    """

    console: Console
    clock: Clock
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.tensorboard and find_spec("tensorboard") is None:
            raise ConfigError(
                "--tensorboard needs the package: pip install 'vitreous[tensorboard]'"
            )


def train(
    config: RunConfig,
    pictures: PictureSet,
    make_learner: Callable[[RunConfig, PictureSet], Learner[Model]],
    validate: Callable[[Model], ValidScore],
    run: RunFolder,
    sitting: Sitting,
) -> Learner[Model]:
    """Train to the end of the plan, from the newest checkpoint where there is one.

    Args:
        config: every setting.
        pictures: to learn from.
        make_learner: what a step does; called once more where steps are timed first.
        validate: scores a model on the validation pictures.
        run: where everything is written.
        sitting: this process.

    Returns:
        The learner as it is at the end.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
        StorageError: where something can't be written; what was saved before is whole.
        TrainingError: where the loss stays no number, or memory too small.
    """
    # What an earlier sitting decided by its clock is repeated without one.
    keeps_time = config.train.budget_s is not None and not has_checkpoint(run.checkpoints)
    kept = streams_kept(choose_device(config.train.device))
    free_memory()  # of a training before this one, such as another fold's
    with kept, in_same_order(config.train), _stop_requests() as stopped:
        while True:
            try:
                return _sit(
                    config, pictures, make_learner, validate, run, sitting, stopped, keeps_time
                )
            except Diverged as error:
                fault = error.with_traceback(None)  # which holds on to the learner
            except TooLittleMemory:
                if team_for(config.train.parallel).size > 1:
                    raise  # others may be in the midst of the step
                fault = None
            free_memory()
            config = _go_on(config, fault, run, sitting.console)


def _sit(
    config: RunConfig,
    pictures: PictureSet,
    make_learner: Callable[[RunConfig, PictureSet], Learner[Model]],
    validate: Callable[[Model], ValidScore],
    run: RunFolder,
    sitting: Sitting,
    stopped: Callable[[], bool],
    keeps_time: bool,
) -> Learner[Model]:
    """From where the run's files are to the end of the plan."""
    console, clock = sitting.console, sitting.clock
    plan = _read_or_make_plan(config, pictures, make_learner, validate, run, clock)
    learner = make_learner(in_pieces(config, plan.accumulate), pictures)
    if config.train.compile and not learner.is_compiled:
        console.warn("no compiler here: the model learns without being compiled")
    state = learner.state
    if load_newest_checkpoint(run.checkpoints, state, [back.step for back in plan.returns]):
        console.info(f"going on at step {state.step} of {plan.total_steps}")
    share(learner)
    diary = Diary(learner, plan, run, console, sitting.tensorboard)
    is_stopping = False
    with closing(diary), console.task("training", plan.total_steps) as task:
        while state.step < plan.total_steps and not is_stopping:
            loss = learner.learn(plan)
            at_end = state.step == plan.total_steps
            diary.note_loss(loss, plan, task)
            if at_end or state.step % plan.evaluate_every == 0:
                diary.note_validation(validate, plan, task)
            if keeps_time and not at_end:
                plan = _keep_budget(plan, config, diary, clock, run)
            is_stopping = stopped()
            diary.save(plan, at_once=at_end or is_stopping)
    # Behind the last step as well: what comes next, such as another fold, would not ask again.
    if is_stopping or stopped():
        raise Interrupted(
            f"stopped at step {state.step} of {plan.total_steps}; all of it is saved. "
            f"Go on with: vitreous {learner.command} --resume {quote(str(run.whole))}"
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
    plan = read_record(run.plan, Plan) if run.plan.exists() else None
    if fault:
        assert plan is not None
        plan = plan_return(plan, fault, config, run)
        console.warn(
            f"the loss is no number at step {fault.step}: back to step {plan.returns[-1].step}, "
            f"at {plan.rate_share:g} of the learning rate"
        )
    else:
        config = with_less_memory(in_pieces(config, plan.accumulate if plan else 1))
        plan = plan and replace(plan, accumulate=config.train.accumulate)
        console.warn(what_fits(config.train))
    if plan is not None:
        write_json(run.plan, plan.to_json())
    return config


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
        return read_record(run.plan, Plan)
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
        del probe
        free_memory()
        left = clock.left_s(train.budget_s, validation_s)
        plan = plan_budget(left, step_s, validation_s, steps_per_epoch, train.epochs)
    plan = replace(plan, accumulate=train.accumulate)
    write_json(run.plan, plan.to_json())
    return plan


def _keep_budget(plan: Plan, config: RunConfig, diary: Diary, clock: Clock, run: RunFolder) -> Plan:
    """Change the number of steps where the machine has become slower or faster than measured."""
    train, step = config.train, diary.learner.state.step
    assert train.budget_s is not None
    validation_s = diary.validation_s or plan.evaluation_s or 0.0
    if diary.pace_steps() < plan.pace_every:
        return plan
    step_s = diary.step_s()
    diary.restart_pace()
    left = clock.left_s(train.budget_s, validation_s)
    most = max(1, round(train.epochs * len(diary.learner.pictures) / train.batch_size))
    kept = keep_budget(plan, step, step_s, validation_s, left, most)
    if kept is not plan:
        write_json(run.plan, kept.to_json())
    return kept


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Catch Ctrl-C and SIGTERM once, to stop between two steps; a second one stops at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    before: dict[int, Any] = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) is not None  # of a C program around this one
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
