"""The doctor's page: one HTML file with the findings, and the pictures that they are about.

Takes values and a function that gives pictures; writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from vitreous.doctor.findings import Checkup, Finding, Section
from vitreous.pages.pictures import Embedded, PictureOf, picture_uri
from vitreous.pages.render import environment, render

#: Findings of a section and files of a finding that stand on the page at once.
_CASES, _FILES = 12, 6
#: Findings of a section that are told at all, and pictures of the whole page.
_LINES, _PICTURES = 300, 250
#: Of a report's section about the pictures: findings of a kind, and pictures.
_FEW_CASES, _FEW_PICTURES = 3, 24
_SIDE_PX = 128
#: Kinds whose files can't be shown, or are not worth it.
_WITHOUT_PICTURES = frozenset(("unreadable", "truncated", "empty", "not_a_picture", "ignored"))


@dataclass(frozen=True)
class Case:
    """A finding as the page shows it.

    Args:
        detail: what was seen.
        files: the first ones: name, and the picture where it is shown.
        more: how many files are left out.
    """

    detail: str
    files: Sequence[tuple[str, Embedded | None]]
    more: int


@dataclass(frozen=True)
class Chapter:
    """A section as the page shows it.

    Args:
        section: with all its findings.
        cases: those that stand on the page at once.
        lines: those that unfold.
        more: how many are left out.
    """

    section: Section
    cases: Sequence[Case]
    lines: Sequence[Case]
    more: int


def render_checkup(checkup: Checkup, picture_of: PictureOf, overlay: str) -> str:
    """The page as a whole HTML document.

    Args:
        checkup: what was found.
        picture_of: reads a file.
        overlay: the proposal's file, as a command would name it; not told where it is empty.
    """
    values = {
        "checkup": checkup,
        "name": checkup.source.absolute().name,
        "worst": next((severity for severity, count in checkup.counts.items() if count), "none"),
        "chapters": _chapters(checkup, picture_of, _CASES, _LINES, _PICTURES),
        "command": f"vitreous train {quote(str(checkup.source))} --overlay {quote(overlay)}",
    }
    return render(environment("vitreous.doctor").get_template("check.html.jinja"), values)


def render_findings(checkup: Checkup, picture_of: PictureOf) -> str:
    """The same in short, as a part of another page.

    Args:
        checkup: what was found.
        picture_of: reads a file.
    """
    values = {
        "checkup": checkup,
        "chapters": _chapters(checkup, picture_of, _FEW_CASES, _FEW_CASES, _FEW_PICTURES),
        "command": f"vitreous check {quote(str(checkup.source))} --out NEW_FOLDER",
    }
    return render(environment("vitreous.doctor").get_template("findings.html.jinja"), values)


def _chapters(
    checkup: Checkup, picture_of: PictureOf, cases_shown: int, told: int, pictures: int
) -> list[Chapter]:
    left = pictures
    chapters = []
    for section in checkup.sections:
        shown, folded = section.findings[:cases_shown], section.findings[cases_shown:told]
        cases = []
        for finding in shown:
            show = left > 0 and finding.kind not in _WITHOUT_PICTURES
            cases.append(_case(checkup, finding, picture_of if show else None))
            left -= sum(picture is not None for _, picture in cases[-1].files)
        lines = [_case(checkup, finding, None) for finding in folded]
        more = len(section.findings) - len(cases) - len(lines)
        chapters.append(Chapter(section, cases, lines, more))
    return chapters


def _case(checkup: Checkup, finding: Finding, picture_of: PictureOf | None) -> Case:
    files = []
    for path in finding.files[:_FILES]:
        pixels = picture_of(path) if picture_of else None
        picture = None if pixels is None else picture_uri(pixels, _SIDE_PX)
        files.append((checkup.shown(path), picture))
    return Case(finding.detail, files, len(finding.files) - len(files))
