"""The page on which people classify pictures: the same files for a server and for a folder.

Which engine answers stands in its head: the server that sent it, or the browser itself. It is made
of plain modules that browsers load as they are (ADR 13); what other pages share is `base.css`.
"""

from pathlib import Path
from typing import Literal

import vitreous.pages

#: Where all but the page itself lies, relative to it.
FOLDER = "page/"
_ENGINE_LINE = '<meta name="engine" content="server">'
#: A folder's host sends no policy, so the page brings its own; it can compile WebAssembly.
LOCAL_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; media-src blob:; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
#: Files that one engine alone needs.
_ONLY = {"server": ("engine-server.js",), "local": ("engine-local.js", "local-worker.js")}


def page_files(engine: Literal["server", "local"]) -> dict[str, bytes]:
    """The page's files by their address, relative to where it stands; it is ``index.html``.

    Args:
        engine: what answers: the server that sends them, or the browser itself.
    """
    others = {name for key, names in _ONLY.items() if key != engine for name in names}
    files = {}
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in (".css", ".js", ".svg") and path.name not in others:
            files[FOLDER + path.name] = path.read_bytes()
    files[f"{FOLDER}base.css"] = _read(vitreous.pages.__path__[0], "templates/page.css")
    files["index.html"] = _page(engine)
    return files


def _page(engine: str) -> bytes:
    html = _read(__path__[0], "index.html").decode()
    if engine == "local":
        policy = f'<meta http-equiv="Content-Security-Policy" content="{LOCAL_POLICY}">'
        named = _ENGINE_LINE.replace("server", "local")
        assert _ENGINE_LINE in html
        html = html.replace(_ENGINE_LINE, f"{policy}\n{named}")
    return html.encode()


def _read(folder: str, name: str) -> bytes:
    return (Path(folder) / name).read_bytes()
