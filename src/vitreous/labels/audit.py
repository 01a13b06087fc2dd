"""From a run with folds to the labels that are worth a look.

The folds' answers are what makes it honest: each picture was answered by a model that it was held
out of. A model that has learned a wrong label agrees with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from vitreous.core.config import from_mapping, load_toml
from vitreous.core.run import RunFolder
from vitreous.data.dataset import as_it_was, path_as_text, read_split_table
from vitreous.data.folder import folder_of, list_labelled
from vitreous.data.overlay import Change, Overlay, path_in_overlay, plain_path, read_overlay
from vitreous.data.table import Sample
from vitreous.errors import RunError
from vitreous.evaluation.label_errors import (
    LabelErrors,
    find_label_errors,
    label_errors_in_words,
)
from vitreous.evaluation.results import FoldAnswers
from vitreous.training.config import RunConfig


@dataclass(frozen=True)
class Suspect:
    """A label that is worth a look.

    Args:
        file: the picture, as listed.
        label: its class.
        suggested: the class that the folds take it for.
        probability: of that class, 0 to 1.
        self_confidence: probability of the label.
        rank: 1 for the label that is likeliest wrong.
    """

    file: Path
    label: str
    suggested: str
    probability: float
    self_confidence: float
    rank: int

    @property
    def reason(self) -> str:
        """Why it is worth a look."""
        return (
            f"looks like '{self.suggested}' ({self.probability:.2f}), not like '{self.label}' "
            f"({self.self_confidence:.2f})"
        )


@dataclass(frozen=True)
class Audit:
    """What the folds of a run say of its labels.

    Args:
        run: the run's folder.
        source: the folder or table that it learned from.
        folder: that paths of an overlay count from.
        classes: their names.
        errors: about all labels.
        suspects: those worth a look, the likeliest wrong first.
        own: changes that the run began with.
        page: the HTML page, where one was written.
        overlay: the proposal's file, likewise.
    """

    run: Path
    source: Path
    folder: Path
    classes: tuple[str, ...]
    errors: LabelErrors
    suspects: tuple[Suspect, ...]
    own: tuple[Change, ...] = ()
    page: Path | None = None
    overlay: Path | None = None

    @property
    def verdict(self) -> str:
        """One sentence on all labels."""
        return label_errors_in_words(self.errors)

    def shown(self, suspect: Suspect) -> str:
        """A suspect's path as an overlay has it."""
        return path_in_overlay(suspect.file, self.folder)

    def own_beside(self, suspects: Iterable[Suspect]) -> list[Change]:
        """The run's own changes to all pictures but these."""
        files = {plain_path(suspect.file) for suspect in suspects}
        kept = (own for file, own in self._own_by_file.items() if file not in files)
        return [change for own in kept for change in own]

    def own_of(self, suspect: Suspect) -> list[Change]:
        """The run's own changes to one picture."""
        return self._own_by_file.get(plain_path(suspect.file), [])

    @cached_property
    def _own_by_file(self) -> dict[str, list[Change]]:
        found: dict[str, list[Change]] = {}
        for change in self.own:
            found.setdefault(plain_path(self.folder / change.path), []).append(change)
        return found

    @property
    def proposal(self) -> list[Change]:
        """An overlay that leaves suspects out, and keeps what the run's own says of others.

        To leave a picture out that was right costs little; to give it a wrong label costs more. So
        nothing is relabelled unseen (Northcutt et al. 2021, section 3.2, prune likewise). No more
        than half of a class goes, the likeliest wrong: where most look wrong, the folds may be.
        """
        sizes = self.errors.noise.sum(1)  # a row is all pictures with that label
        left = {name: round(size) // 2 for name, size in zip(self.classes, sizes, strict=True)}
        dropped = []
        for one in self.suspects:
            if left[one.label]:
                left[one.label] -= 1
                dropped.append(one)
        drops = [Change(self.shown(one), "drop", reason=one.reason) for one in dropped]
        return [*self.own_beside(dropped), *drops]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the command prints them."""
        meant = self.errors.means_something
        return {
            "verdict": self.verdict,
            "n": len(self.errors.order),
            "classes": list(self.classes),
            "suspects": [{**asdict(one), "file": str(one.file)} for one in self.suspects],
            "noise": self.errors.noise.round(2).tolist() if meant else None,
            "expected_errors": asdict(self.errors.expected) if meant else None,
            "agreement": asdict(self.errors.agreement),
        }


def audit_folds(run: RunFolder) -> Audit:
    """Compare a run's labels with what its folds answered.

    Args:
        run: a run with folds, all of them done.

    Raises:
        RunError: where it has no folds, has not finished them, or its source doesn't list
            its pictures and labels any more.
        DataError: where its source is gone.
    """
    config = from_mapping(RunConfig, load_toml(run.config))
    if not run.fold_answers.exists():
        raise RunError(_why_not(run, config))
    answers = FoldAnswers.read(run)
    probabilities = answers.mean()
    overlay = read_overlay(run.overlay) if config.data.overlay else None
    source = Path(config.data.source)
    samples = _own_samples(run, source, overlay)
    errors = find_label_errors(probabilities, answers.labels.numpy())
    asked = [samples[row] for row in answers.rows.tolist()]
    return Audit(
        run=run.path,
        source=source,
        folder=folder_of(source),
        classes=answers.classes,
        errors=errors,
        suspects=_suspects(errors, probabilities, asked, answers.classes),
        own=tuple(change for _, change in overlay.changes) if overlay else (),
    )


def _suspects(
    errors: LabelErrors,
    probabilities: np.ndarray,
    samples: Sequence[Sample],
    classes: Sequence[str],
) -> tuple[Suspect, ...]:
    """Each file once: a table may list one several times."""
    found: dict[Path, Suspect] = {}
    index = {name: number for number, name in enumerate(classes)}
    for at in errors.suspects.tolist():
        sample, suggested = samples[at], int(errors.suggested[at])
        assert sample.label is not None
        suspect = Suspect(
            file=sample.path,
            label=sample.label,
            suggested=classes[suggested],
            probability=float(probabilities[at, suggested]),
            self_confidence=float(probabilities[at, index[sample.label]]),
            rank=len(found) + 1,
        )
        found.setdefault(sample.path, suspect)
    return tuple(found.values())


def _own_samples(run: RunFolder, source: Path, overlay: Overlay | None) -> tuple[Sample, ...]:
    """The pictures as the run listed them: the answers belong to rows of that."""
    before = read_split_table(run.split)
    samples = as_it_was(list_labelled(source, overlay), before).samples
    now = [(path_as_text(sample.path), sample.label) for sample in samples]
    if now != [(row["path"], row["label"]) for row in before]:
        raise RunError(
            f"{source} doesn't list the pictures and labels that {run.path} began with: put them "
            f"back, or audit anew (vitreous audit {quote(str(source))})"
        )
    return samples


def _why_not(run: RunFolder, config: RunConfig) -> str:
    if config.folds:
        return (
            f"{run.path} hasn't finished its folds: go on with it (vitreous train --resume "
            f"{quote(str(run.path))})"
        )
    return (
        f"{run.path} has no folds, and its model has learned the labels, the wrong ones too: audit "
        f"the pictures themselves (vitreous audit {quote(config.data.source)}), or train with "
        "--folds 5"
    )
