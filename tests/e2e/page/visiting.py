"""What a visitor of the page does, and what the page says."""

import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.pages.reading import CHROMIUM
from vitreous.exporting.web import runtime_folder

RUNTIME = runtime_folder()  # asked before the tests get a cache folder of their own
NEEDS_CHROMIUM = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")
PATIENCE_MS = 60_000
CAUTIOUS = ("--sets", "0.9", "--refuse")


#: Keeps back the camera, and what a server answers to requests of some kind, until `letGo(which)`.
KEEP_BACK = """(kind) => {
  const held = [];
  const wait = () => new Promise((go) => held.push(go));
  window.letGo = (which) => held[which]();
  window.heldBack = async (count) => {
    for (let left = 3000; held.length < count && left; left--) {
      await new Promise((go) => setTimeout(go, 10));
    }
    return held.length;
  };
  const read = Response.prototype.json;
  Response.prototype.json = async function () {
    const found = await read.call(this);
    if (this.url.includes(kind)) await wait();
    return found;
  };
  const devices = navigator.mediaDevices;
  const ask = devices.getUserMedia.bind(devices);
  window.streams = [];
  devices.getUserMedia = async (wish) => {
    const stream = await ask(wish);
    streams.push(stream);
    await wait();
    return stream;
  };
}"""


@contextmanager
def serving(run: Path, *options: str, **environment: str) -> Iterator[str]:
    """`vitreous serve` as a person starts it, on a free port; its page's address."""
    words = [sys.executable, "-m", "vitreous", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as server:
        try:
            assert server.stderr
            said = ""
            while not (found := re.search(r"page: (\S+)", said)):
                line = server.stderr.readline()
                assert line, said
                said += line
            yield found[1]
        finally:
            server.terminate()


@contextmanager
def hosting(folder: Path) -> Iterator[str]:
    """A plain host of static files."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()
        thread.join()


def predicted(vitreous, run: Path, files: list[Path], caution=CAUTIOUS) -> list[dict]:
    result = vitreous("predict", run, *files, *caution, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def give(page, files: list[Path], count: int | None = None) -> None:
    """Choose files, and wait until that many cards have answers."""
    page.set_input_files("#files", [str(file) for file in files])
    settled(page, count or len(files))


def settled(page, count: int) -> None:
    page.locator(".said[aria-busy=false]").nth(count - 1).wait_for()
    assert page.locator(".card.answer").count() == count


def words(page, selector: str) -> list[str]:
    return [text.replace("\xa0", " ") for text in page.locator(selector).all_inner_texts()]


def shown(share: float) -> str:
    if 0.995 < share < 1:
        return "over 99 %"
    return "under 1 %" if 0 < share < 0.005 else f"{int(100 * share + 0.5)} %"


def violations(page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]
