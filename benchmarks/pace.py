"""How a peer's loop measures its pace, as the product does its own."""

import time
from statistics import median


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
