"""Files of the package, served from memory: read once, so no path is ever opened later."""

import hashlib
import mimetypes
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from fastapi import FastAPI, Request, Response

#: What browsers want to be told, and some systems don't know.
_KINDS = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
          ".webmanifest": "application/manifest+json", ".svg": "image/svg+xml"}  # fmt: skip


def add_files(app: FastAPI, files: Mapping[str, bytes], index: str) -> None:
    """Serve files, one of them at ``/`` and the others below it.

    Args:
        app: gets a route for each file.
        files: contents by address, relative to ``/``.
        index: which of them is served at ``/``.
    """
    for name, content in files.items():
        app.add_api_route(
            "/" if name == index else f"/{name}",
            _answer(name, content),
            methods=["GET", "HEAD"],
            include_in_schema=False,
        )


def _answer(name: str, content: bytes) -> Callable[[Request], Response]:
    suffix = PurePosixPath(name).suffix
    kind = _KINDS.get(suffix) or mimetypes.guess_type(name)[0]
    headers = {
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        # It may be kept, and is asked for again each time: a newer vitreous has a newer page.
        "Cache-Control": "no-cache",
    }

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind or "application/octet-stream", headers=headers)

    return answer  # pyright: ignore[reportReturnType]
