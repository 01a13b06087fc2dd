"""Changes to a listing, in a table of their own, so that no picture and no table is touched.

A CSV file with the columns `path`, `action`, `value` and `reason`, a change each. Relative paths
count from the folder of pictures, or from the folder of the table that lists them:

    drop      the picture is left out
    relabel   it gets the class `value`, one that there is
    group     it stays in one split with all others of the group `value`, and with theirs

`vitreous check` proposes such a file, a person edits it, `vitreous train --overlay` applies it.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from vitreous.core.config import did_you_mean
from vitreous.core.files import atomic_path
from vitreous.data.table import Sample, write_rows
from vitreous.errors import DataError

Action = Literal["drop", "relabel", "group"]
COLUMNS = ("path", "action", "value", "reason")
_NEEDED = COLUMNS[:3]
_DONE = {"drop": "dropped", "relabel": "relabelled", "group": "grouped"}


@dataclass(frozen=True)
class Change:
    """One line of an overlay.

    Args:
        path: the picture's file.
        action: what to do with it.
        value: the class to relabel it, or the name of its group; "" where it is dropped.
        reason: for the person who reads it.
    """

    path: str
    action: Action
    value: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Overlay:
    """A file of changes, as read.

    Args:
        name: of the file, for messages.
        changes: each with the number of its line.
        text: of the whole file; bytes that are no UTF-8 as lone surrogates.
    """

    name: str
    changes: tuple[tuple[int, Change], ...]
    text: str

    def __str__(self) -> str:
        counts = Counter(change.action for _, change in self.changes)
        told = [f"{counts[action]} {_DONE[action]}" for action in _DONE if counts[action]]
        return ", ".join(told) or "nothing to change"

    def applied_to(self, samples: Sequence[Sample], folder: Path) -> list[Sample]:
        """The samples after all changes, in their order.

        Args:
            samples: as listed.
            folder: where relative paths count from.

        Raises:
            DataError: for a path that isn't listed, a class that there isn't, or two changes that
                exclude each other, with the line.
        """
        rows: dict[str, list[int]] = {}
        for row, sample in enumerate(samples):
            rows.setdefault(plain_path(sample.path), []).append(row)
        classes = {sample.label for sample in samples if sample.label}
        groups = Groups()
        changed: list[Sample | None] = list(samples)
        done: dict[tuple[str, str], int] = {}
        for line, change in self.changes:
            where = f"{self.name}, line {line}"
            file = plain_path(folder / change.path)
            if file not in rows:
                raise DataError(f"{where}: no picture '{change.path}' is listed in {folder}")
            _refuse_contradiction(where, file, change, done)
            done[file, change.action] = line
            if change.action == "relabel" and change.value not in classes:
                raise DataError(
                    f"{where}: no class '{change.value}': {did_you_mean(change.value, classes)}"
                )
            for row in rows[file]:
                changed[row] = _changed(samples[row], changed[row], change, groups)
        return [
            replace(sample, group=groups.whole(sample.group)) if sample.group else sample
            for sample in changed
            if sample
        ]


def read_overlay(path: Path) -> Overlay:
    """Read a file of changes.

    Raises:
        DataError: where it is missing, is no such table, or has an unknown action.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"can't read the overlay {path}: {error.strerror or error}") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name.strip() for name in next(rows, [])]
        if not set(_NEEDED) <= set(columns) <= set(COLUMNS) or len(set(columns)) < len(columns):
            raise DataError(
                f"{path} has the columns {', '.join(columns) or 'none'}: an overlay has "
                f"{', '.join(COLUMNS)}"
            )
        changes = []
        for row in filter(None, rows):
            place = f"{path}, line {rows.line_num}"
            if len(row) > len(columns):
                raise DataError(f"{place}: {len(row)} fields for {len(columns)} columns")
            values = dict(zip(columns, row, strict=False))
            changes.append((rows.line_num, _change(place, values)))
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV table: {error}") from None
    return Overlay(str(path), tuple(changes), text)


def overlay_text(changes: Iterable[Change]) -> str:
    """Changes as the text of a file that `read_overlay` turns back into them."""
    return f"{','.join(COLUMNS)}\n{overlay_lines(changes)}"


def overlay_lines(changes: Iterable[Change]) -> str:
    """The same without the columns' names."""
    text = io.StringIO()
    write_rows(text, ((one.path, one.action, one.value, one.reason) for one in changes))
    return text.getvalue()


def write_overlay(path: Path, changes: Iterable[Change]) -> None:
    """Write changes atomically into a file for `read_overlay`.

    Raises:
        StorageError: where it can't be written.
    """
    with atomic_path(path) as staging:
        # Bytes of a name that is no UTF-8 come back as they were.
        staging.write_bytes(overlay_text(changes).encode("utf-8", "surrogateescape"))


def path_in_overlay(path: Path, folder: Path) -> str:
    """How an overlay names a picture so that it is found again, wherever the overlay lies.

    Args:
        path: of the picture, as listed.
        folder: where relative paths count from.
    """
    inside = path.is_relative_to(folder)
    return str(path.relative_to(folder) if inside else path.absolute())


def plain_path(path: Path) -> str:
    """A path by which equal files of one folder are found; links are not followed."""
    return os.path.normpath(path.absolute())


def _change(place: str, values: dict[str, str]) -> Change:
    path, word, value = (values.get(name, "") for name in _NEEDED)
    word = word.strip()
    if not path.strip():
        raise DataError(f"{place}: 'path' is empty")
    actions: tuple[Action, ...] = get_args(Action)
    if word not in actions:
        raise DataError(f"{place}: unknown action '{word}': {did_you_mean(word, actions)}")
    action = actions[actions.index(word)]
    # Spaces at the ends of a file's or a class' name belong to it, those of a group's tell nothing.
    if action == "group" or not value.strip():
        value = value.strip()
    if (action == "drop") == bool(value):
        needed = "takes no value" if value else "needs a value: a class or the name of a group"
        raise DataError(f"{place}: {action} {needed}")
    return Change(path, action, value, values.get("reason", ""))


def _refuse_contradiction(
    where: str, file: str, change: Change, done: dict[tuple[str, str], int]
) -> None:
    """A picture is changed once in each way, and not at all where it is dropped."""
    for action in get_args(Action):
        clash = action == change.action or "drop" in (action, change.action)
        if clash and (file, action) in done:
            raise DataError(
                f"{where}: {change.path} is {_DONE[action]} in line {done[file, action]} already"
            )


def _changed(
    listed: Sample, sample: Sample | None, change: Change, groups: "Groups"
) -> Sample | None:
    if sample is None or change.action == "drop":
        return None
    if change.action == "relabel":
        # The annotators' votes were for what is taken back here.
        return replace(sample, label=change.value, votes=dict.fromkeys(sample.votes, 0.0))
    if listed.group:
        groups.join(listed.group, change.value)
    return replace(sample, group=change.value)


class Groups:
    """Names of groups that have become one, because they share a picture."""

    def __init__(self) -> None:
        self._within: dict[str, str] = {}

    def join(self, first: str, second: str) -> None:
        """Two names are one from now on."""
        first, second = self.whole(first), self.whole(second)
        if first != second:
            self._within[first] = second

    def whole(self, name: str) -> str:
        """The name that stands for all that a name was joined with."""
        while name in self._within:
            name = self._within[name]
        return name
