"""Cautious answers: sets of classes instead of one, none of these, and what is promised of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Protocol

import numpy as np

from vitreous.core.console import Console
from vitreous.errors import ConfigError
from vitreous.evaluation.calibration import (
    CALIBRATION_FILE,
    Calibration,
    calibration_path,
    is_calibrated,
    load_calibration,
)
from vitreous.evaluation.conformal import SURE, SetRule, needed_for
from vitreous.evaluation.refusal import FEATURES, KEPT, WORDS, Refusal, reasons_of
from vitreous.exporting.contract import Contract, RefusalLimit
from vitreous.serving.wish import Wish
from vitreous.training.classifier import read_description

_LISTED = 5


@dataclass(frozen=True)
class Caution:
    """What a cautious answer says beside the likeliest class.

    Args:
        classes: that the true one is among, the likeliest first; ``None`` where nobody asked.
        refused: whether the picture is none of these; ``None`` where nobody asked.
        reason: in what it is unlike all that the model learned from.
    """

    classes: tuple[str, ...] | None
    refused: bool | None
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        """What was asked for; a refused picture has no label, and no class in its set."""
        answer: dict[str, Any] = {}
        if self.classes is not None:
            answer["set"] = [] if self.refused else list(self.classes)
        if self.refused is not None:
            answer |= {"refused": self.refused, "reason": self.reason}
        return answer | ({"label": None, "probability": None} if self.refused else {})


class Refuses(Protocol):
    """Something that knows when a picture is none of these."""

    def reasons(self, numbers: Mapping[str, np.ndarray]) -> list[str | None]:
        """As `Refusal.reasons`."""
        ...


@dataclass(frozen=True)
class MeasuredRefusal:
    """The refusal of a network that gives strangeness behind its logits.

    Args:
        known: the order of its views, and the limit.
    """

    known: RefusalLimit

    def reasons(self, numbers: Mapping[str, np.ndarray]) -> list[str | None]:
        return reasons_of(numbers[FEATURES], self.known.views, self.known.limit)


@dataclass(frozen=True)
class Guard:
    """What makes answers cautious.

    Args:
        rule: of the sets.
        refusal: when a picture is none of these.
    """

    rule: SetRule | None = None
    refusal: Refuses | None = None

    def cautions(
        self,
        numbers: Mapping[str, np.ndarray],
        probabilities: np.ndarray,
        classes: tuple[str, ...],
    ) -> list[Caution]:
        """For each picture of a batch.

        Args:
            numbers: of the pictures, by way of looking (see `refusal`), where refusing was asked
                for.
            probabilities: of each class.
            classes: their names.

        Shape:
            probabilities: (pictures, classes)
        """
        within = self.rule.sets(probabilities) if self.rule else None
        reasons = self.refusal.reasons(numbers) if self.refusal else None
        cautions = []
        for at, row in enumerate(probabilities):
            chosen = None
            if within is not None:
                order = np.argsort(-row, kind="stable")
                chosen = tuple(classes[int(k)] for k in order if within[at, k])
            view = reasons[at] if reasons else None
            refused = None if reasons is None else view is not None
            cautions.append(Caution(chosen, refused, WORDS[view] if view else None))
        return cautions


def own_calibration(weights: Path, console: Console) -> Calibration | None:
    """The calibration of these weights, where there is one; another's is left out, and told.

    Raises:
        RunError: where it is damaged.
    """
    if is_calibrated(weights):
        return load_calibration(weights)
    if (there := calibration_path(weights)).exists():
        console.warn(f"{there} belongs to other weights than {weights}: no sets, no none of these")
    return None


def open_guard(weights: Path, where: object, wish: Wish, console: Console) -> Guard | None:
    """What was asked for, with what can be promised of it said aloud.

    Args:
        weights: the file.
        where: what the person called it.
        wish: what is asked of its answers.
        console: is told the promises.

    Returns:
        ``None`` where nothing was asked for.

    Raises:
        ConfigError: for a coverage that isn't between 0 and 1, or what the weights aren't
            calibrated for.
    """
    if wish.sets is None and not wish.refuse:
        return None
    calibration, classes = load_calibration(weights), read_description(weights).classes
    guard = run_guard(calibration, where, len(classes), wish)
    if guard and calibration:
        again, promises = _again(where), []
        if guard.rule:
            refusal = calibration.refusal if wish.refuse else None
            promises.append(_promise_of_sets(guard.rule, refusal, calibration, classes, again))
        if wish.refuse and calibration.refusal:
            promises.append(_promise_of_refusal(calibration.refusal, calibration, again))
        for promised, text in promises:
            if promised and wish.precision != "float32":
                promised, text = False, f"{text}: {_in_fewer_bits(wish.precision)}"
            _tell(promised, text, console)
    return guard


def run_guard(
    calibration: Calibration | None, where: object, num_classes: int, wish: Wish
) -> Guard | None:
    """What was asked for of a run, without a word.

    Args:
        calibration: the run's; ``None`` where it has none.
        where: what the person called it.
        num_classes: that it knows.
        wish: what is asked of its answers.

    Returns:
        ``None`` where nothing was asked for.

    Raises:
        ConfigError: for a coverage that isn't between 0 and 1, or what it isn't calibrated for.
    """
    if wish.sets is None and not wish.refuse:
        return None
    if calibration is None:
        raise ConfigError(
            f"{where} isn't calibrated (no {CALIBRATION_FILE} lies beside its weights): "
            f"{_again(where)}"
        )
    if wish.refuse and calibration.refusal is None:
        raise ConfigError(
            f"nobody knows what {where} learned from, so it can't tell what is unlike it: leave "
            "--refuse out, or use a run of vitreous train"
        )
    rule = None
    if wish.sets is not None:
        rule = calibration.scores.rule(wish.sets, num_classes, wish.by_class)
    return Guard(rule, calibration.refusal if wish.refuse else None)


def _in_fewer_bits(precision: str) -> str:
    return f"it was calibrated in float32, and these answers are in {precision}"


def _again(where: object) -> str:
    return f"vitreous calibrate {quote(str(where))} DATA, DATA being labelled pictures it never saw"


def guard_of_sealed(
    contract: Contract, where: object, wish: Wish, console: Console
) -> Guard | None:
    """What was asked for of a sealed file, with what can be promised of it said aloud.

    Raises:
        ConfigError: for what the file doesn't carry, naming what it does.
    """
    guard = sealed_guard(contract, where, wish)
    promises = []
    if guard and guard.rule:
        said = _said_of_sets(guard.rule.coverage, wish.refuse)
        kept = not wish.refuse or (contract.refuse is not None and contract.refuse.promised)
        promises.append((all(guard.rule.promised) and kept, said, _sure(wish.refuse)))
    if guard and guard.refusal and contract.refuse:
        promises.append((contract.refuse.promised, _said_of_refusal(), SURE))
    for promised, said, sure in promises:
        how = f"{_percent(sure)} sure, as calibrated before it was sealed"
        why = "what it was made of couldn't promise it (vitreous calibrate, then export anew)"
        if contract.precision != "float32":
            why = _in_fewer_bits(contract.precision)
        _tell(promised, f"{said} ({how})" if promised else f"{said}: {why}", console)
    return guard


def sealed_guard(contract: Contract, where: object, wish: Wish) -> Guard | None:
    """What was asked for of a sealed file.

    Raises:
        ConfigError: for what the file doesn't carry, naming what it does.
    """
    if wish.sets is None and not wish.refuse:
        return None
    if wish.by_class:
        raise ConfigError(f"{where} has no sets for each class by itself: leave --by-class out")
    if wish.refuse and contract.refuse is None:
        raise ConfigError(
            f"{where} can't tell what is unlike all it learned from: leave --refuse out"
        )
    rule = None if wish.sets is None else contract.rule(wish.sets, where)
    refusal = MeasuredRefusal(contract.refuse) if wish.refuse and contract.refuse else None
    return Guard(rule, refusal)


def _said_of_sets(coverage: float, refuse: bool, by_class: bool = False) -> str:
    which = "such pictures of any one class" if by_class else "such pictures"
    said = f"sets hold the true class of at least {_percent(coverage)} of {which}"
    # The set of a refused picture is empty, and some that are refused are proper ones.
    return f"{said}, less the {_percent(1 - KEPT)} at most that are refused" if refuse else said


def _sure(refuse: bool) -> float:
    """How sure the promise of sets is; two that hold at once fail as often as both together."""
    return 1 - 2 * (1 - SURE) if refuse else SURE


def _said_of_refusal() -> str:
    return f"at least {_percent(KEPT)} of such pictures are kept"


def _tell(is_promise: bool, text: str, console: Console) -> None:
    """A promise is news; that there is none should not be missed."""
    if is_promise:
        console.info(text)
    else:
        console.warn(f"no promise that {text}")


def _promise_of_sets(
    rule: SetRule,
    refusal: Refusal | None,
    calibration: Calibration,
    classes: Sequence[str],
    again: str,
) -> tuple[bool, str]:
    counts, needed, by_class = rule.counts, needed_for(rule.coverage), len(rule.counts) > 1
    said = _said_of_sets(rule.coverage, bool(refusal) and not by_class, by_class)
    if by_class:
        if refusal:
            return False, f"{said}: refusing empties some, and of one class that may be many"
        few = [at for at, promised in enumerate(rule.promised) if not promised]
        if few:
            names = ", ".join(f"'{classes[at]}' ({counts[at]})" for at in few[:_LISTED])
            more = f" and {len(few) - _LISTED} more classes" if len(few) > _LISTED else ""
            return (
                False,
                f"{said}: it takes {needed} of each to calibrate on, too few for {names}{more}",
            )
    enough, sure = all(rule.promised), _sure(refusal is not None)
    if refusal:
        enough, needed = enough and refusal.promised, max(needed, refusal.needed)
    return _promise(said, enough, sum(counts), needed, calibration.untouched, again, sure)


def _promise_of_refusal(refusal: Refusal, calibration: Calibration, again: str) -> tuple[bool, str]:
    said = _said_of_refusal()
    count = refusal.calibrated_on
    return _promise(said, refusal.promised, count, refusal.needed, calibration.untouched, again)


def _promise(
    said: str,
    enough: bool,
    count: int,
    needed: int,
    untouched: bool,
    again: str,
    sure: float = SURE,
) -> tuple[bool, str]:
    """Whether something can be promised, and that in words."""
    if not enough:
        few = f"{count} pictures to calibrate on are too few, it takes {needed}"
        return False, f"{said}: {few}; {again}"
    if not untouched:
        return False, (
            f"{said}, though it should be nearly so: the {count} pictures calibrated on also chose "
            "the weights, or they or copies of them were learned from, be it by the weights that "
            f"it began with; for a promise: {again}"
        )
    how = f"{_percent(sure)} sure; calibrated on {count} pictures used for nothing else"
    return True, f"{said} ({how})"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
