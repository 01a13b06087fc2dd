"""Talking to the person: on standard error, live in a terminal or notebook, plain lines elsewhere.

Standard output is left to results, so that a program can read it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Without a terminal, how often a long task says where it stands.
PLAIN_INTERVAL_S = 15.0


class _Stderr:
    """Standard error, from which nobody may read any more: no work ends for that."""

    def write(self, text: str) -> int:
        """Write text, or let it go."""
        try:
            if (file := self._file) is not None:
                file.write(text)
        except OSError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Write what has been held back, or let it go."""
        try:
            if (file := self._file) is not None:
                file.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Let this process write there into nothing, at its end too."""
        with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), self.fileno())

    @property
    def _file(self) -> TextIO | None:
        """The stream itself, also behind what Rich puts there while it draws; some have none."""
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    @property
    def rich_proxied_file(self) -> "_Stderr":
        """What Rich writes to: this, whatever stands in the stream's place."""
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Task:
    """One long piece of work with a known number of parts."""

    def __init__(self, description: str, total: int, console: "Console") -> None:
        self.description, self.total, self.done = description, total, 0
        self.detail = ""
        self._console = console
        self._started = self._last_line = time.monotonic()
        self._first = 0

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        """Say how far the work is; `detail` is shown behind it."""
        if total is not None:
            self.total = total
        if self.done == 0:
            self._first, self._started = done, time.monotonic()
        self.done, self.detail = done, detail or self.detail
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last_line >= PLAIN_INTERVAL_S and self.done < self.total:
            self._last_line = now
            rate = (self.done - self._first) / max(now - self._started, 1e-9)
            left = f", {_clock((self.total - self.done) / rate)} left" if rate > 0 else ""
            self._console.info(f"{self.description} {self.done}/{self.total}{left}  {self.detail}")


class _LiveTask(Task):
    def __init__(self, description: str, total: int, console: "Console", live: Progress) -> None:
        super().__init__(description, total, console)
        self._live = live
        self._id = live.add_task(description, total=total, detail="")

    def _show(self) -> None:
        self._live.update(self._id, completed=self.done, total=self.total, detail=self.detail)


class Console:
    """Messages and progress for a person.

    Args:
        quiet: say only warnings.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        # Rich itself would end the process where a pipe is broken.
        file = cast(TextIO, _Stderr())
        self._rich = RichConsole(file=file, highlight=False, emoji=False)

    def info(self, message: str) -> None:
        """One line of news."""
        if not self.quiet:
            self._rich.print(escape(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """One line that should not be missed."""
        self._rich.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """Show progress while the block runs."""
        # Rich draws into a notebook by ipywidgets; without it, plain lines are better than none.
        in_notebook = self._rich.is_jupyter and find_spec("ipywidgets") is not None
        if self.quiet or not (self._rich.is_terminal or in_notebook):
            yield Task(description, total, self)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        with Progress(*columns, console=self._rich) as live:
            yield _LiveTask(description, total, self, live)

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, int, int], None]]:
        """A function that shows work of several stages: (description, parts done, their total)."""
        with ExitStack() as stack:
            current: Task | None = None

            def show(description: str, done: int, total: int) -> None:
                nonlocal current
                if current is None or current.description != description:
                    stack.close()
                    current = stack.enter_context(self.task(description, total))
                current.update(done)

            yield show


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
