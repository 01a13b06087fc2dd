"""What the doctor can find: kinds, how bad they are, and what a person does about them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitreous.data.overlay import Change

Severity = Literal["error", "warning", "note"]
#: The worst first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Args:
        title: what it is, as a heading.
        advice: what to do next.
    """

    title: str
    advice: str


#: In the order in which one would mend them.
KINDS = {
    "unreadable": Kind(
        "Can't be read",
        "Save it anew from the original. Training leaves it out and says so.",
    ),
    "truncated": Kind(
        "Ends too soon",
        "Copy or download it again: the end of the file is missing.",
    ),
    "empty": Kind("Empty file", "Copy or download it again: it has 0 bytes."),
    "not_a_picture": Kind(
        "No picture, only named like one",
        "Look into it: often it is a page that says why a download failed.",
    ),
    "leak": Kind(
        "The same picture in two splits",
        "Take it out of one of them: a score on pictures that were learned from is too high.",
    ),
    "label_conflict": Kind(
        "The same picture under two classes",
        "Decide which class is right and drop the others.",
    ),
    "group_leak": Kind(
        "One person or scene in two splits",
        "Divide by group, not by picture: the score shall tell how new people or scenes go.",
    ),
    "too_little": Kind(
        "Nothing to learn from",
        "Training refuses it: it takes at least two classes, and pictures that aren't held back.",
    ),
    "missing_class": Kind(
        "A class without pictures",
        "Add pictures, or remove the class: each split needs some of every class.",
    ),
    "class_names": Kind(
        "Classes with almost the same name",
        "If they mean the same, give all their pictures one name.",
    ),
    "small_class": Kind(
        "A class with few pictures",
        "Collect more: a handful can neither be learned from nor scored on.",
    ),
    "imbalance": Kind(
        "Classes of very different size",
        "Look at balanced accuracy, and try --set train.class_weights=balanced.",
    ),
    "shortcut": Kind(
        "The class can be told without looking at the subject",
        "Collect all classes in the same way, or make what differs alike (crop, resize, save "
        "anew): a model would learn that instead.",
    ),
    "blank": Kind("Nothing to be seen", "Leave it out: it is one colour or nearly so."),
    "tiny": Kind("Tiny beside the others", "Find a larger copy, or leave it out."),
    "narrow_range": Kind(
        "16 bits, of which those that are read tell nothing",
        "Convert it to 8 bits first, from the darkest to the brightest of its values.",
    ),
    "animated": Kind(
        "Several frames",
        "Only the first one is read: if another one shows the subject, save that as a picture.",
    ),
    "duplicate": Kind(
        "The same picture more than once",
        "Keep one: the others only make it count more.",
    ),
    "near_duplicate": Kind(
        "Nearly the same picture more than once",
        "Keep the best one, or put them into one group, so that a split doesn't part them.",
    ),
    "odd_mode": Kind(
        "Other pixels than the rest",
        "Check that the colours are right once it is read as 8-bit RGB.",
    ),
    "odd_size": Kind(
        "Another size or shape than the rest",
        "Check that the subject is in the middle: that part is what a model sees.",
    ),
    "wrong_extension": Kind(
        "Named like another format",
        "Nothing has to be done here: files are read by their content. Other programs may stumble.",
    ),
    "ignored": Kind(
        "Passed over",
        "Convert what isn't read (HEIC, AVIF, raw files of cameras) to JPEG, and give a picture "
        "with another name a picture's. Nothing has to be done with anything else.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        kind: a key of `KINDS`.
        files: those concerned, as listed; none where it is about whole classes.
        detail: what was seen, in a sentence.
        severity: "error": a score or a label is wrong, or training refuses it; "warning": worth
            mending; "note": worth knowing.
    """

    kind: str
    files: tuple[Path, ...]
    detail: str
    severity: Severity

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "files": [str(path) for path in self.files],
            "detail": self.detail,
            "severity": self.severity,
        }


@dataclass(frozen=True)
class Section:
    """The findings of one kind and one severity, as they are shown.

    Args:
        kind: a key of `KINDS`.
        severity: of all of them.
        findings: in the order in which they were found.
    """

    kind: str
    severity: Severity
    findings: tuple[Finding, ...]

    @property
    def title(self) -> str:
        """What it is."""
        return KINDS[self.kind].title

    @property
    def advice(self) -> str:
        """What to do next."""
        return KINDS[self.kind].advice


@dataclass(frozen=True)
class Checkup:
    """What was looked at, and what was found.

    Args:
        source: the folder or table.
        folder: that relative paths count from.
        pictures: how many were listed, by split; "" is no split.
        classes: their names.
        findings: the worst first, then in the order of `KINDS`.
        proposal: changes that would mend what can be mended without looking, for an overlay.
        page: the HTML page, where one was written.
        overlay: the proposal's file, likewise.
    """

    source: Path
    folder: Path
    pictures: dict[str, int]
    classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    proposal: tuple[Change, ...] = ()
    page: Path | None = None
    overlay: Path | None = None

    @property
    def counts(self) -> dict[Severity, int]:
        """Findings of each severity."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    @property
    def sections(self) -> list[Section]:
        """Findings by severity and kind, in the order to show them."""
        grouped: dict[tuple[str, Severity], list[Finding]] = {}
        for finding in self.findings:
            grouped.setdefault((finding.kind, finding.severity), []).append(finding)
        return [
            Section(kind, severity, tuple(findings))
            for (kind, severity), findings in grouped.items()
        ]

    @property
    def verdict(self) -> str:
        """One sentence on all of it."""
        looked_at = counted(sum(self.pictures.values()), "picture")
        bad = [counted(count, name) for name, count in self.counts.items() if count]
        if not bad:
            return f"Nothing found in {looked_at}."
        return f"{', '.join(bad)} in {looked_at}."

    def shown(self, path: Path) -> str:
        """A path as short as it can be told: from the folder, where it lies inside."""
        inside = path.is_relative_to(self.folder)
        return str(path.relative_to(self.folder) if inside else path)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the command prints them."""
        return {"findings": [finding.to_json() for finding in self.findings]}

    def to_record(self) -> dict[str, Any]:
        """All that was found, as plain values, for `from_record`."""
        return {
            "source": str(self.source),
            "folder": str(self.folder),
            "pictures": self.pictures,
            "classes": self.classes,
            **self.to_json(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Checkup":
        """What `to_record` gave; without a proposal."""
        return cls(
            source=Path(record["source"]),
            folder=Path(record["folder"]),
            pictures=dict(record["pictures"]),
            classes=tuple(record["classes"]),
            findings=tuple(
                Finding(
                    found["kind"],
                    tuple(map(Path, found["files"])),
                    found["detail"],
                    found["severity"],
                )
                for found in record["findings"]
            ),
        )


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first, then in the order of `KINDS`, then as they came."""
    kinds = list(KINDS)
    return tuple(
        sorted(
            findings,
            key=lambda found: (SEVERITIES.index(found.severity), kinds.index(found.kind)),
        )
    )


def listed(names: Sequence[str]) -> str:
    """Names as in a sentence: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 picture", "2,000 pictures"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
