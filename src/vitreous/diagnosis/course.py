"""What the log says of a run: where the loss began, how high it rose, where it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

#: Share of a run whose losses are averaged for one figure.
_SHARE = 0.06


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the training loss went, in nats, and the validation with it.

    Args:
        steps: taken.
        total_steps: planned.
        epochs: passes over the training pictures so far.
        first: loss of the first steps; ``None``, as the others, where nothing was logged.
        peak: highest loss behind them.
        middle: loss halfway through what was done.
        last: loss of the last steps.
        non_finite_step: at which the loss was no number any more; ``None`` where it always was.
        rate_share: what the learning rate was of the configured one by the end.
        valid_lowest, valid_last: validation loss; ``None`` before the first one.
        valid_lowest_epoch: when the lowest was.
    """

    steps: int = 0
    total_steps: int = 0
    epochs: float = 0.0
    first: float | None = None
    peak: float | None = None
    middle: float | None = None
    last: float | None = None
    non_finite_step: int | None = None
    rate_share: float = 1.0
    valid_lowest: float | None = None
    valid_last: float | None = None
    valid_lowest_epoch: float | None = None

    @classmethod
    def of(
        cls, history: Sequence[Mapping[str, Any]], total_steps: int, rate_share: float = 1.0
    ) -> "Course":
        """Read the lines of ``metrics.jsonl``.

        Args:
            history: of the kinds "train", "valid" and "stopped".
            total_steps: that were planned.
            rate_share: what the learning rate was of the configured one by the end.
        """
        trained = [line for line in history if line["kind"] == "train"]
        validated = [line for line in history if line["kind"] == "valid"]
        stopped = [line["step"] for line in history if line["kind"] == "stopped"]
        course = cls(
            # Losses that are no number are in no line of training.
            steps=max((line["step"] for line in (*trained, *validated)), default=0),
            total_steps=total_steps,
            non_finite_step=stopped[-1] if stopped else None,
            rate_share=rate_share,
        )
        if trained:
            losses = np.array([line["loss"] for line in trained])
            few = max(1, round(_SHARE * len(losses)))
            half = len(losses) // 2
            course = replace(
                course,
                epochs=trained[-1]["epoch"],
                first=float(losses[0]),
                peak=float(losses[1:].max(initial=losses[0])),
                middle=float(losses[half : half + few].mean()),
                last=float(losses[-few:].mean()),
            )
        if validated:
            lowest = min(validated, key=lambda line: line["loss"])
            course = replace(
                course,
                valid_lowest=lowest["loss"],
                valid_last=validated[-1]["loss"],
                valid_lowest_epoch=lowest["epoch"],
            )
        return course
