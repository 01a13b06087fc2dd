"""The worker's side of a comparison: take steps when it is its turn.

Imported by every worker, in whichever environment, so it needs nothing but Python.
"""

import json
import os
import sys
import time
from collections.abc import Callable

#: Steps that are not counted: they allocate memory, compile and choose kernels.
WARMUP = 3


class Turns:
    """Waits for its turn before a step and reports how long a turn's steps took.

    The other side writes a number of steps to standard input and reads a line of JSON, written to
    what was standard output at the start; whatever libraries print goes to standard error.

    Args:
        batch_size: pictures of a step.
        wait: for a GPU to be done with what it was given, at the end of a turn.
        warmup: steps that are not counted.
    """

    def __init__(
        self, batch_size: int, wait: Callable[[], object] = lambda: None, warmup: int = WARMUP
    ) -> None:
        self.batch_size, self._wait = batch_size, wait
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._left = self._steps = warmup
        self._started = self._began = time.perf_counter()

    def begin(self) -> None:
        """Before a step."""
        if not self._left:
            order = sys.stdin.readline()
            if not order.strip():
                raise SystemExit
            self._left = self._steps = int(order)
            self._started = time.perf_counter()
        self._began = time.perf_counter()

    def end(self) -> None:
        """After a step."""
        if self._left <= 2:  # also before the last one, which is measured alone
            self._wait()
        now = time.perf_counter()
        self._left -= 1
        if self._left == 0:
            answer = {
                "pictures_per_s": self._steps * self.batch_size / (now - self._started),
                "last_s": now - self._began,
            }
            self._answers.write(json.dumps(answer) + "\n")
            self._answers.flush()
