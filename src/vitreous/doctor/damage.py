"""Why a file that should be a picture can't be read, from its own bytes.

The decoder's complaint says where it stumbled; people want to know whether the file was cut off,
whether it never was a picture, or whether it is broken. Nothing here decodes anything.
"""

import codecs
from pathlib import Path

from vitreous.data.decode import unread_format

#: How files begin that are pictures of a format that is read.
_PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_OTHER_FILES = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "a compressed file",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"8BPS": "a Photoshop document",
    b"OggS": "a sound or a film",
    b"ID3": "a sound",
    b"SQLite format 3": "a database",
}
_HEAD_BYTES = 1024
#: JPEG markers that may follow another segment before the picture's data: tables, frames,
#: application data, comments (ITU T.81, table B.1).
_SEGMENTS = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APPLICATION = frozenset(range(0xE0, 0xF0))
_START_OF_SCAN = 0xDA
#: No segment but application data and comments is longer.
_LONGEST_TABLE = 2048


def diagnose(path: Path, complaint: str) -> tuple[str, str]:
    """The kind of finding for a file that can't be decoded, and what was seen.

    Args:
        path: the file.
        complaint: what the decoder said.
    """
    try:
        if not path.is_file():  # opening a pipe would wait forever
            return "unreadable", complaint
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, size - _HEAD_BYTES))
            tail = file.read()
        if found := picture_format(head):
            too_short = _ends_early(path, found, head, tail, size) or "truncated" in complaint
            return ("truncated" if too_short else "unreadable"), f"{found}, {complaint}"
    except OSError as error:
        return "unreadable", f"can't be read: {error.strerror or error}"
    if not size:
        return "empty", complaint
    what = None if unread_format(head) else _what_else(head)
    return ("not_a_picture", what) if what else ("unreadable", complaint)


def picture_format(head: bytes) -> str | None:
    """The format of a picture that is read, by how its file begins."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # two letters alone may begin a text
        return "BMP"
    return next((name for magic, name in _PICTURES.items() if head.startswith(magic)), None)


def _what_else(head: bytes) -> str | None:
    """What a file is that is no picture, where that can be told."""
    if head[4:8] == b"ftyp":
        return "a film"
    for magic, name in _OTHER_FILES.items():
        if head.startswith(magic):
            return name
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing or another XML document"
    return "a text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Whether bytes are UTF-8 or Latin-1 without the control characters that no text has."""
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    if control:
        return False
    try:
        # The last character may be cut in two, which this decoder waits for.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return sum(byte < 128 for byte in head) > 0.75 * len(head)
    return True


def _ends_early(path: Path, kind: str, head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file stops before the end that its format asks for."""
    if kind == "JPEG":
        return _jpeg_ends_early(path, tail, size)
    if kind == "PNG":
        return b"IEND" not in tail
    if kind == "GIF":
        return not tail.rstrip(b"\x00").endswith(b";")
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 > size
    if kind == "BMP":
        return int.from_bytes(head[2:6], "little") > size
    return False


def _jpeg_ends_early(path: Path, tail: bytes, size: int) -> bool:
    """Whether the segments are whole as far as they go, and the end of the picture is missing.

    Behind the first bytes of a JPEG there may be anything; so a segment has to look like one.
    """
    if b"\xff\xd9" in tail:
        return False
    at, has_frame = 2, False
    with path.open("rb") as file:
        while True:
            file.seek(at)
            start = file.read(7)
            if len(start) < 7:
                return True
            marker, length = start[1], int.from_bytes(start[2:4], "big")
            is_named = marker in _APPLICATION and start[4:7].isalpha()
            if start[0] != 0xFF or marker not in _SEGMENTS:
                return False
            if marker == _START_OF_SCAN:
                return has_frame
            at += 2 + length
            if at >= size:
                return is_named or length <= _LONGEST_TABLE
            has_frame = has_frame or marker in _FRAMES
