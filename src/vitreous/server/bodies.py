"""From the body of a request to named bytes, within limits, and never by way of the disk.

Sizes are counted as bytes arrive, whatever a header says of them, and all bodies together have a
limit too: that many are in memory at most, however many clients there are. What JSON becomes in
memory is limited by counting what it is made of before it is read. Nothing here looks into a
picture; the names are only handed back.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import HTTPException, Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from vitreous.server.settings import Settings

#: What a picture is called that came without a name.
UNNAMED = "picture"
#: How many of the largest bodies are kept in memory at a time.
_BODIES = 8
#: Lists, objects and commas that a request in JSON may have, and how many more for each picture.
#: Base64 has none of them, and each is some 30 times as large once it is read, while all wait.
_SIGNS, _SIGNS_EACH = 1000, 100
#: From so many bytes on, taking a body apart is left to another thread.
_LONG = 100_000
#: Parts of a form that are no pictures, at most.
_OTHER_FIELDS = 32


@dataclass(frozen=True)
class Picture:
    """A picture of a request.

    Args:
        name: as the client calls it.
        data: its bytes.
    """

    name: str
    data: bytes


class Bodies:
    """Reads the bodies of requests, each within its limits and all within one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[tuple[list[Picture], bool]]:
        """The pictures of a request, and whether there may be several; counted until it is done.

        Raises:
            HTTPException: 408, 413, 415, 422 or 429.
        """
        kind, options = _content_type(request)
        held = _Held(self)
        try:
            body = await self._receive(request, held)
            if kind == b"multipart/form-data":
                pictures = await _taken_apart(self._parts, body, options.get(b"boundary", b""))
            elif kind == b"application/json":
                pictures = await _taken_apart(self._listed, body)
            else:
                pictures = [Picture(UNNAMED, body)]
            del body
            yield pictures, kind in (b"multipart/form-data", b"application/json")
        finally:
            self._held -= held.bytes

    async def _receive(self, request: Request, held: "_Held") -> bytes:
        most = self._settings.max_bytes
        said = request.headers.get("content-length", "")
        if said.isascii() and said.isdigit() and int(said[:20]) > most:
            raise HTTPException(413, f"the request has {said} bytes, more than the limit of {most}")
        chunks = []
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                async for chunk in request.stream():
                    held.add(len(chunk))
                    if held.bytes > most:
                        raise HTTPException(413, f"the request has more than {most} bytes")
                    chunks.append(chunk)
        except TimeoutError:
            wait_s = self._settings.timeout_s
            raise HTTPException(
                408, f"the request took longer than {wait_s:g} s to arrive"
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "the client left before its request was complete") from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def hold(self, count: int) -> None:
        """Count bytes that have arrived.

        Raises:
            HTTPException: 429 where there are too many in all.
        """
        self._held += count
        if self._held > _BODIES * self._settings.max_bytes:
            raise HTTPException(429, "too many requests are arriving", {"Retry-After": "1"})

    def _parts(self, body: bytes, boundary: bytes) -> list[Picture]:
        """The files of a form (RFC 7578)."""
        form = _Form(self._settings.max_pictures)
        try:
            parser = MultipartParser(boundary, form.callbacks())  # pyright: ignore[reportArgumentType]
            parser.write(body)
            parser.finalize()
        except (MultipartParseError, ValueError) as error:
            _unreadable(f"not a form: {error}")
        if not form.is_complete:
            _unreadable("not a form: it ends too early")
        return form.pictures or _unreadable("no file is in the form")

    def _listed(self, body: bytes) -> list[Picture]:
        """``{"pictures": [{"name": "a.jpg", "data": "<base64>"}]}``."""
        most = _SIGNS + _SIGNS_EACH * self._settings.max_pictures
        if sum(body.count(sign) for sign in (b"[", b"{", b",")) > most:
            _unreadable(f"more than {most} lists, objects and commas: pictures take a few each")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            _unreadable("not JSON")
        if not isinstance(value, dict) or not isinstance(value.get("pictures"), list):
            _unreadable('"pictures" should be a list')
        listed = value["pictures"]
        if len(listed) > self._settings.max_pictures:
            _too_many(self._settings.max_pictures)
        if not listed:
            _unreadable('"pictures" is empty')
        return [_decoded(at, one) for at, one in enumerate(listed, start=1)]


class _Held:
    """The bytes that one request has in memory."""

    def __init__(self, bodies: Bodies) -> None:
        self.bytes, self._bodies = 0, bodies

    def add(self, count: int) -> None:
        self.bytes += count
        self._bodies.hold(count)


class _Form:
    """Collects the files of a form while it is parsed."""

    def __init__(self, max_pictures: int) -> None:
        self.pictures: list[Picture] = []
        self.is_complete = False
        self._most, self._parts = max_pictures, 0
        self._name, self._value, self._disposition = b"", b"", b""
        self._chunks: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _begin(self) -> None:
        self._parts += 1
        # Other fields are few in any form that a program or a page sends.
        if self._parts > self._most + _OTHER_FIELDS:
            _too_many(self._most)
        self._disposition, self._chunks = b"", []

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" in options:  # other fields of a form are nothing to classify
            name = options[b"filename"].decode("utf-8", "replace") or UNNAMED
            self.pictures.append(Picture(name, b"".join(self._chunks)))
            if len(self.pictures) > self._most:
                _too_many(self._most)

    def _complete(self) -> None:
        self.is_complete = True


def _content_type(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "send the picture as it is, without a content-encoding")
    said = request.headers.get("content-type")
    if said is None:
        return b"application/octet-stream", {}
    kind, options = parse_options_header(said)
    if kind.startswith(b"image/") or kind in (
        b"application/octet-stream",
        b"multipart/form-data",
        b"application/json",
    ):
        return kind, options
    raise HTTPException(
        415,
        "send a picture as image/* or application/octet-stream, or several as multipart/form-data "
        "or application/json",
    )


async def _taken_apart(work: Any, body: bytes, *more: bytes) -> list[Picture]:
    if len(body) < _LONG:
        return work(body, *more)
    return await asyncio.to_thread(work, body, *more)


def _decoded(number: int, item: object) -> Picture:
    name = item.get("name", UNNAMED) if isinstance(item, dict) else None
    data = item.get("data") if isinstance(item, dict) else None
    if not isinstance(name, str) or not isinstance(data, str):
        _unreadable(f'picture {number} should be {{"name": "a.jpg", "data": "<base64>"}}')
    try:
        return Picture(name, base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        _unreadable(f"the data of picture {number} is no base64")


def _unreadable(detail: str) -> NoReturn:
    raise HTTPException(422, detail)


def _too_many(most: int) -> NoReturn:
    raise HTTPException(413, f"more than {most} pictures in one request")
