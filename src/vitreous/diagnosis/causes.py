"""What a run can be stuck on: the kinds of causes, and a diagnosis that names some of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What each kind is called.
TITLES = {
    "non_finite": "The loss is no number any more",
    "one_label": "Nearly all pictures have one label",
    "leak": "Pictures of the score are among the training pictures",
    "collapse": "Collapsed to one class, or nearly",
    "head": "The head is dead or saturated from the start",
    "rate_too_high": "The learning rate is too high",
    "no_warmup": "A high learning rate without a warm-up",
    "rate_too_low": "The learning rate is too low",
    "normalisation": "The pictures reach the model on a wrong scale",
    "augmentation": "The augmentation is too strong",
    "labels": "The labels don't go with the pictures",
    "too_little_data": "Too few training pictures",
    "overfitting": "It knows its training pictures by heart",
    "underfitting": "Too short a training, or too small a model",
}


@dataclass(frozen=True)
class Cause:
    """Something that keeps a run from learning, or its score from being true.

    Args:
        kind: a key of `TITLES`.
        evidence: what was seen, in a sentence with numbers.
        advice: what to do next, in a sentence.
        change: values of settings that do it, by name; none where settings can't mend it.
        command: what does it; empty where no command can.
        tried: what came of trying the change, in a sentence; empty where nobody tried.
    """

    kind: str
    evidence: str
    advice: str
    change: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    tried: str = ""

    @property
    def title(self) -> str:
        """What it is."""
        return TITLES[self.kind]


@dataclass(frozen=True)
class Diagnosis:
    """What a run is stuck on.

    Args:
        seen: where the run stands, in a sentence.
        causes: the likeliest first; none where nothing is wrong or nothing can be told.
        tried: what the short experiments were, in a sentence; empty without any.
    """

    seen: str
    causes: tuple[Cause, ...] = ()
    tried: str = ""

    def __str__(self) -> str:
        """One line: what it is, and the evidence of the likeliest cause."""
        if not self.causes:
            return self.seen
        first, *others = self.causes
        more = f"; also: {', '.join(cause.title.lower() for cause in others)}" if others else ""
        return f"{first.title}: {first.evidence}{more}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        causes = [
            {
                "kind": cause.kind,
                "title": cause.title,
                "evidence": cause.evidence,
                "advice": cause.advice,
                "change": dict(cause.change),
                "command": cause.command,
                "tried": cause.tried,
            }
            for cause in self.causes
        ]
        return {"seen": self.seen, "causes": causes, "tried": self.tried}
