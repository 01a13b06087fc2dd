"""Files of the package, served from memory: a folder read once, so no path is ever opened later."""

import hashlib
import mimetypes
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response

#: What browsers want to be told, and some systems don't know.
_KINDS = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
          ".webmanifest": "application/manifest+json", ".svg": "image/svg+xml"}  # fmt: skip


def add_folder(app: FastAPI, folder: Path, index: str, prefix: str) -> list[str]:
    """Serve the files of a folder, one at an address of its own and all below a prefix.

    Args:
        app: gets a route for each file.
        folder: whose files are read now; without the first one there are no routes.
        index: name of the file that is served at ``/``.
        prefix: of the addresses, with a slash at both ends.

    Returns:
        The addresses.
    """
    if not (folder / index).is_file():
        return []
    addresses = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            name = path.relative_to(folder).as_posix()
            addresses += ["/"] if name == index else []
            addresses.append(prefix + name)
            answer = _answer(path)
            for address in addresses[-2:] if name == index else addresses[-1:]:
                app.add_api_route(address, answer, methods=["GET", "HEAD"], include_in_schema=False)
    return addresses


def _answer(path: Path) -> Callable[[Request], Response]:
    content = path.read_bytes()
    kind = _KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0]
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
