"""The audit's page: one HTML file to look through the suspects and decide about each.

Takes values and a function that gives pictures; writes nothing. It loads nothing; the one script
in it, named by its hash, makes the overlay of what is chosen. Without scripts it can be read.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from unicodedata import category

from markupsafe import Markup

from vitreous.data.overlay import overlay_lines, overlay_text
from vitreous.labels.audit import Audit, Suspect
from vitreous.pages.pictures import Embedded, PictureOf, picture_uri
from vitreous.pages.render import environment, render

#: Suspects that stand on the page: a person's evening, and a file of a few megabytes.
SHOWN = 500
_SIDE_PX = 128
#: Classes whose table fits beside each other.
_TABLE_CLASSES = 12
_SCRIPT = Path(__file__).parent / "templates" / "labels.js"


@dataclass(frozen=True)
class Row:
    """A suspect as the page shows it.

    Args:
        suspect: what is known of it.
        path: as an overlay has it.
        picture: nothing where it can't be read any more.
        group: lines of an overlay that stay unless it is dropped.
        label: lines of an overlay that stay where nothing is chosen.
    """

    suspect: Suspect
    path: str
    picture: Embedded | None
    group: str
    label: str

    @property
    def can_choose(self) -> bool:
        """Whether a script can write its path: bytes that are no UTF-8 don't reach the page."""
        return not any(category(letter) in ("Cc", "Cs") for letter in self.path)


def render_audit(audit: Audit, picture_of: PictureOf, overlay: str) -> str:
    """The page as a whole HTML document.

    Args:
        audit: what was found.
        picture_of: reads a file.
        overlay: the proposal's file, as a command would name it.
    """
    script = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows = [_row(audit, suspect, picture_of) for suspect in audit.suspects[:SHOWN]]
    chosen_here = [row.suspect for row in rows if row.can_choose]
    meant = audit.errors.means_something
    values = {
        "audit": audit,
        "name": audit.source.name,
        "rows": rows,
        "more": max(len(audit.suspects) - SHOWN, 0),
        "noise": audit.errors.noise if meant and len(audit.classes) <= _TABLE_CLASSES else None,
        "kept": overlay_text(audit.own_beside(chosen_here)),
        "script": Markup(script),  # our own file
        "policy": f"script-src 'sha256-{digest}'",
        "command": f"vitreous train {quote(str(audit.source))} --overlay {quote(overlay)}",
    }
    return render(environment("vitreous.labels").get_template("labels.html.jinja"), values)


def _row(audit: Audit, suspect: Suspect, picture_of: PictureOf) -> Row:
    own = audit.own_of(suspect)
    pixels = picture_of(suspect.file)
    return Row(
        suspect=suspect,
        path=audit.shown(suspect),
        picture=None if pixels is None else picture_uri(pixels, _SIDE_PX),
        group=overlay_lines(change for change in own if change.action == "group"),
        label=overlay_lines(change for change in own if change.action != "group"),
    )
