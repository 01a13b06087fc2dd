"""Short trainings from a run's first weights that tell causes apart: one change each.

A cause that is told by signals is a guess at what to change. Here it is changed, alone, for some
dozen steps, and the loss on the same training pictures is compared with that of the settings as
they were. What takes longer than that to show is not refuted by it, and said so.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vitreous.core.config import from_mapping, merge, to_mapping
from vitreous.core.console import Console
from vitreous.core.rng import streams_kept, torch_stream
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import normalise
from vitreous.diagnosis.case import Case, figure, one_digit
from vitreous.diagnosis.causes import Cause, Diagnosis
from vitreous.diagnosis.gather import blind_entropy, train_sample
from vitreous.diagnosis.judge import MOST
from vitreous.evaluation.inference import BATCH_SIZE
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device
from vitreous.training.encoder import Encoder
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import Plan, Stretch

#: Steps of a trial: as many as the time allows, within these.
_FEWEST_STEPS, _MOST_STEPS = 20, 100
#: A loss is lower by so many standard errors, and by this share of what answering blindly costs.
_ERRORS, _SHARE = 3.0, 0.02
#: The same of labels and shuffled ones: how fast some are learned by heart is a matter of chance.
_SHARE_OF_LABELS = 0.1
#: Causes that a change of settings may show to be right within some dozen steps.
_SHORT = ("non_finite", "head", "collapse", "rate_too_high", "no_warmup", "rate_too_low",
          "normalisation", "augmentation")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Args:
        losses: of each picture of a sample of the training pictures, in nats: the cross-entropy of
            its label alone, as the class weighs in training.
        blind: the lowest mean of them that can be had without looking at the pictures.
    """

    losses: np.ndarray
    blind: float

    @property
    def mean(self) -> float:
        """Over the pictures."""
        return float(self.losses.mean())

    @property
    def has_learned(self) -> bool:
        """Whether something was learned of the pictures."""
        return self.mean < (1 - _SHARE) * self.blind

    def is_lower_than(self, other: "Outcome", share: float = _SHARE) -> bool:
        """Whether losses are lower by more than chance, and by more than a trifle."""
        if not np.isfinite(self.losses).all():
            return False
        if not np.isfinite(other.losses).all():
            return True
        gain = other.mean - self.mean
        error = np.sqrt((self.losses.var() + other.losses.var()) / len(self.losses))
        return bool(gain > max(_ERRORS * error, share * self.blind))


class Trials:
    """Short trainings of one run.

    Args:
        config: its settings.
        train: its training pictures.
        classes: their names.
        encoder: what it began with, where that was anything.
    """

    def __init__(
        self,
        config: RunConfig,
        train: PictureSet,
        classes: tuple[str, ...],
        encoder: Encoder | None,
    ) -> None:
        # Each is this process' alone, whoever else may stand by.
        self.config = changed(config, {"train.parallel": "none"})
        self.train, self.classes, self.encoder = train, classes, encoder
        self.steps = _FEWEST_STEPS

    def fit_into(self, seconds: float, count: int) -> float:
        """Choose the steps so that some trials take about so long; seconds they will take."""
        with streams_kept(choose_device(self.config.train.device)):
            learner = ClassLearner(self.config, self.train, self.classes, self.encoder)
            step_s = learner.measure_step_s(_plan(_FEWEST_STEPS), seconds / 20)
        steps = int(seconds / (count * step_s))
        self.steps = min(max(steps, _FEWEST_STEPS), _MOST_STEPS)
        return self.steps * count * step_s

    def run(self, change: Mapping[str, Any], shuffled: bool = False) -> Outcome:
        """Train from the first weights.

        Args:
            change: values of settings by name.
            shuffled: give the pictures each other's labels first.
        """
        config, train = changed(self.config, change), self.train
        if shuffled:
            order = torch.randperm(len(train), generator=torch_stream(config.train.seed, "trial"))
            train = replace(train, labels=train.labels[order], votes=None)
            config = changed(config, {"train.soft_labels": False})
        plan = _plan(self.steps)
        with streams_kept(choose_device(self.config.train.device)):
            learner = ClassLearner(config, train, self.classes, self.encoder)
            for _ in range(self.steps):
                learner.learn(plan)
        return self._outcome(learner, train)

    @torch.inference_mode()
    def _outcome(self, learner: ClassLearner, train: PictureSet) -> Outcome:
        model = learner.state.model.eval()
        pixels, labels = train_sample(train, self.config.train.seed)
        weights = torch.ones(len(self.classes))
        if learner.class_weights is not None:
            weights = learner.class_weights.cpu()
        losses = []
        for part, truth in zip(pixels.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
            logits = model(normalise(part, learner.config.preprocess).to(learner.device))
            losses.append(F.cross_entropy(logits.float().cpu(), truth, weights, reduction="none"))
        found = torch.cat(losses).double().numpy()
        shares = labels.bincount(minlength=len(self.classes)).double() / len(labels)
        blind = blind_entropy(weights * shares)
        return Outcome(np.where(np.isfinite(found), found, np.inf), blind)


def _plan(steps: int) -> Plan:
    return Plan((Stretch(0, 0.0, steps),), steps)


def changed(config: RunConfig, change: Mapping[str, Any]) -> RunConfig:
    """A run's settings with some others."""
    nested: dict[str, Any] = {}
    for name, value in change.items():
        section, _, key = name.partition(".")
        nested = merge(nested, {section: {key: value}})
    return from_mapping(RunConfig, merge(to_mapping(config), nested))


def try_causes(
    case: Case,
    diagnosis: Diagnosis,
    encoder: Encoder | None,
    train: PictureSet,
    seconds: float,
    console: Console,
) -> Diagnosis:
    """Put causes to the test, and look for a better rate where there is none to be tested.

    Args:
        case: the run.
        diagnosis: what its signals say.
        encoder: what it began with, where that was anything.
        train: its training pictures.
        seconds: that all trials together may take, about.
        console: where progress goes.

    Returns:
        The causes whose change helped first, then those that can't be tried or would take longer
        to show; none that a trial refutes.
    """
    candidates = [
        cause
        for cause in diagnosis.causes
        if cause.kind == "labels" or (cause.change and cause.kind in _SHORT)
    ]
    is_stuck = case.signals.train is not None and case.knows < 0.5 and not case.is_cut_short
    if is_stuck and not diagnosis.causes:
        candidates = _other_rates(case)
    if not candidates:
        return diagnosis
    trials = Trials(case.config, train, case.classes, encoder)
    count = 1 + len(candidates)
    expected_s = trials.fit_into(seconds, count)
    told = f"{count} short trainings of {trials.steps} steps from the first weights"
    console.info(f"{told}, about {expected_s:.0f} s")
    started = time.monotonic()
    with console.task("trying", count) as task:
        base = trials.run({})
        task.update(1)
        tried = []
        for number, cause in enumerate(candidates):
            tried.append(_tried(cause, trials, base))
            task.update(number + 2)
    took = f"{told}, {time.monotonic() - started:.0f} s."
    return replace(diagnosis, causes=_ordered(diagnosis, candidates, tried), tried=took)


#: Whether a trial speaks for a cause, against it, or for neither.
_FOR, _NEITHER, _AGAINST = range(3)


def _tried(cause: Cause, trials: Trials, base: Outcome) -> tuple[int, Cause]:
    """What a trial says of a cause, and the cause with it in words."""
    if cause.kind == "labels":
        return _with_shuffled_labels(cause, trials, base)
    other = trials.run(cause.change)
    # Where the run as it was goes wild, anything is better: something has to be learned, too.
    helps = other.has_learned and other.is_lower_than(base)
    losses = (
        f"the loss on training pictures is {figure(other.mean)} after {trials.steps} steps, "
        f"unchanged {figure(base.mean)}"
    )
    if helps:
        return _FOR, replace(cause, tried=f"tried, and it helps: {losses}")
    return _NEITHER, replace(cause, tried=f"tried, too briefly to show: {losses}")


def _with_shuffled_labels(cause: Cause, trials: Trials, base: Outcome) -> tuple[int, Cause]:
    other = trials.run({}, shuffled=True)
    losses = (
        f"after {trials.steps} steps the loss on training pictures is {figure(base.mean)}, and "
        f"{figure(other.mean)} where they have each other's labels"
    )
    if base.is_lower_than(other, _SHARE_OF_LABELS):
        return _AGAINST, cause
    # Of a training that learns nothing yet, labels can make no difference.
    if not (base.has_learned or other.has_learned):
        return _NEITHER, replace(cause, tried=f"tried, too briefly to show: {losses}")
    return _FOR, replace(cause, tried=f"tried, and the labels make no difference: {losses}")


def _ordered(
    diagnosis: Diagnosis, candidates: list[Cause], tried: list[tuple[int, Cause]]
) -> tuple[Cause, ...]:
    """Causes that a trial speaks for, then the others; none that one speaks against."""
    if not diagnosis.causes:  # candidates that no signal spoke for have to prove themselves
        return tuple(cause for verdict, cause in tried if verdict == _FOR)[:1]
    untried = [(_NEITHER, cause) for cause in diagnosis.causes if cause not in candidates]
    left = [pair for pair in (*tried, *untried) if pair[0] != _AGAINST]
    return tuple(cause for _, cause in sorted(left, key=lambda pair: pair[0]))[:MOST]


def _other_rates(case: Case) -> list[Cause]:
    """A tenth and ten times the rate, for a run that is stuck on nothing that signals show."""
    rate = case.config.train.learning_rate
    make = partial(_rate_cause, case)
    return [make("rate_too_high", one_digit(rate / 10)), make("rate_too_low", one_digit(rate * 10))]


def _rate_cause(case: Case, kind: str, rate: float) -> Cause:
    change = {"train.learning_rate": rate}
    return Cause(
        kind,
        f"at a rate of {case.config.train.learning_rate:g} {case.course_in_words()}",
        f"Train anew at a rate of {rate:g}.",
        change,
        case.with_change(change),
    )
