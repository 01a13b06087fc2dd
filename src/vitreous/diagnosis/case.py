"""One run as the rules see it: its signals, its settings and words for both."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from shlex import quote
from typing import Any

from vitreous.diagnosis.signals import Signals
from vitreous.training.config import RunConfig

#: A step that moves a block's matrices by this share of themselves suits most models.
USUAL_STEP = 0.005
#: Standard deviation of an input in which there is hardly anything to be seen.
_FLAT = 0.05


@dataclass(frozen=True)
class Case:
    """A run to be judged.

    Args:
        signals: what is known of it.
        config: its settings.
        classes: their names.
        run: its folder, for commands.
        part: of the run that the signals are of, such as "folds/2" or "rungs/lora"; empty for the
            run itself.
    """

    signals: Signals
    config: RunConfig
    classes: tuple[str, ...]
    run: str
    part: str = ""

    @cached_property
    def knows(self) -> float:
        """Skill on training pictures, from 0 for guessing to 1; 0 without weights."""
        return self.signals.train.skill if self.signals.train else 0.0

    @cached_property
    def scores(self) -> float:
        """Skill on the pictures held back."""
        return self.signals.held_out.skill if self.signals.held_out else 0.0

    @cached_property
    def is_poor(self) -> bool:
        """Whether it learned less than half of what there is to learn."""
        return min(self.knows, self.scores) < 0.5

    @cached_property
    def rise(self) -> float:
        """Highest training loss relative to where it began, or to answering blindly."""
        course = self.signals.course
        if course.peak is None or course.first is None:
            return 1.0
        return course.peak / max(course.first, self.signals.floor)

    @cached_property
    def is_cut_short(self) -> bool:
        """Whether it was stopped before the end of its plan."""
        return self.signals.course.steps < self.signals.course.total_steps

    @cached_property
    def is_odd_scale(self) -> bool:
        """Whether settings bring what the model is given far from a mean of 0 and a spread of 1.

        Pictures that are nearly of one colour are so on the usual scale, too, and no setting is to
        blame.
        """
        signals, spreads = self.signals, self.config.preprocess.std
        is_odd = not _FLAT < signals.input_std < 8 or abs(signals.input_mean) > 8
        return is_odd and signals.input_std * sum(spreads) / len(spreads) / 0.5 > _FLAT

    def usual_scale(self) -> dict[str, list[float]]:
        """Settings that bring pixels to between -1 and 1, where others bring them far from it."""
        half = [0.5, 0.5, 0.5]
        return {"preprocess.mean": half, "preprocess.std": half} if self.is_odd_scale else {}

    @cached_property
    def rate_setting(self) -> str:
        """Name of the setting that says the rate: low-rank updates of a ladder have their own."""
        is_lora = self.config.ladder and self.config.train.lora_rank
        return "ladder.lora_learning_rate" if is_lora else "train.learning_rate"

    def usual_rate(self) -> float:
        """The rate whose step is a usual one for the first weights, to one digit."""
        rate, step = self.config.train.learning_rate, self.signals.step
        return one_digit(rate * USUAL_STEP / step) if step else one_digit(rate / 10)

    def with_change(self, change: Mapping[str, Any]) -> str:
        """The command that trains anew as the run did, but for some settings."""
        settings = [
            word
            for name, value in change.items()
            # TOML, which JSON is here.
            for word in ("--set", quote(f"{name}={json.dumps(value, separators=(',', ':'))}"))
        ]
        return self.anew("--config", quote(f"{self.run}/config.toml"), *settings)

    def anew(self, *words: str) -> str:
        """A command that trains on the same pictures."""
        source, out = quote(self.config.data.source), quote(f"{self.run}-2")
        if self.config.data.overlay:  # settings name it too, where the run was when it began
            words = ("--overlay", quote(f"{self.run}/overlay.csv"), *words)
        return " ".join(("vitreous train", source, *words, "--out", out))

    def course_in_words(self) -> str:
        """Where the training loss began, and how it went on."""
        course = self.signals.course
        if course.first is None or course.peak is None or course.last is None:
            return "no loss was logged"
        rose = f" rose to {figure(course.peak)} and" if self.rise > 1.5 else ""
        return (
            f"the training loss began at {figure(course.first)},{rose} ended at "
            f"{figure(course.last)}; answering blindly would be {figure(self.signals.floor)}"
        )


def one_digit(value: float) -> float:
    """A number rounded to its first digit."""
    return float(f"{value:.0e}")


def figure(value: float) -> str:
    """A loss or ratio as a person reads it."""
    return f"{value:.3g}" if math.isfinite(value) else "no number"


def measured(relative: float) -> str:
    """A size beside another: "4 % of", or where it is larger "12 times"."""
    return f"{percent(relative)} of" if relative < 1 else f"{figure(relative)} times"


def percent(share: float) -> str:
    """A share: "44 %"; one that is short of all never shows as 100 %."""
    shown = min(share, 0.99) if share < 1 else share
    return f"{100 * shown:.0f} %" if shown >= 0.01 or shown == 0 else f"{100 * shown:.1g} %"
