"""One command by several processes, as `torchrun` starts them: the first leads, others follow."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from vitreous.errors import TrainingError, VitreousError
from vitreous.job import Run
from vitreous.training.distributed import Joined, as_lost, is_started_with_others, join
from vitreous.training.follow import follow

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_leading = False


def first_leads(command: Callable[[], Result]) -> Result | None:
    """Do a command in the first process; all others train along, and return when it is done.

    Raises:
        TrainingError: in the first process, where another one has ended.
    """
    joined = join()
    assert isinstance(joined, Joined)
    if joined.leads:
        return _lead(joined, command)
    _follow(joined)
    return None


def one_run(function: Callable[Parameters, Run]) -> Callable[Parameters, Run]:
    """Have a function of the Python interface train with all processes and return in each."""

    @wraps(function)
    def together(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Run:
        if _leading or not is_started_with_others():
            return function(*args, **kwargs)
        joined = join()
        assert isinstance(joined, Joined)
        if joined.has_parted:
            raise TrainingError(
                "the other processes ended with the error before: start the script anew"
            )
        if joined.leads:
            return _lead(joined, lambda: function(*args, **kwargs))
        return Run(Path(_follow(joined)["run"]))

    return together


def _lead(joined: Joined, command: Callable[[], Result]) -> Result:
    """Where it fails the connections are closed, which ends the others wherever they are."""
    global _leading
    _leading = True
    try:
        result = command()
        run = str(result.path.absolute()) if isinstance(result, Run) else None
        joined.tell("end", run=run)
        return result
    except BaseException as error:
        lost = as_lost(joined, error) if isinstance(error, RuntimeError) else None
        joined.part()
        if lost:
            raise lost from error
        raise
    finally:
        _leading = False


def _follow(joined: Joined) -> dict[str, Any]:
    """What the leader says at the end."""
    try:
        with _deaf():
            return follow(joined)
    except Exception as error:
        if joined.is_lost(error):
            sys.exit(1)  # the leader has said why
        is_ours = isinstance(error, VitreousError)
        text = str(error) if is_ours else f"{type(error).__name__}: {error}"
        if not joined.leave_words(text) and is_ours:
            click.echo(f"error: {text}", err=True)
        if is_ours:
            sys.exit(error.exit_status)
        raise


@contextmanager
def _deaf() -> Iterator[None]:
    """Leave it to the leader what Ctrl-C and SIGTERM do, which all processes get."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN)
              for number in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # of a C program around this one
                signal.signal(number, handler)
