"""A small run, and real servers of it on free ports."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import vitreous
from vitreous.core.console import Console
from vitreous.data.faces import write_faces
from vitreous.server.lifecycle import Running, serve
from vitreous.server.model import Wanted
from vitreous.server.settings import Settings
from vitreous.serving.weights import NOTHING

#: Far beyond what anything here takes.
PATIENCE_S = 60.0
TINY = {"model": {"depth": 1, "embed_dim": 16, "num_heads": 1}}


@dataclass(frozen=True)
class Live:
    """A server at work.

    Args:
        running: what runs it.
        http: a client of it.
    """

    running: Running
    http: httpx.Client

    @property
    def port(self) -> int:
        return self.running.port

    def predict(self, data: bytes, query: str = "", kind: str = "image/png") -> httpx.Response:
        return self.http.post(f"/v1/predict{query}", content=data, headers={"content-type": kind})


def talk(port: int, sent: bytes) -> bytes:
    """All that a server says to some bytes until it ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("server") / "faces"
    write_faces(folder, 12, size=32)
    return folder


@pytest.fixture(scope="session")
def run(faces, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("server-runs") / "faces"
    cache = tmp_path_factory.mktemp("server-cache")
    quiet = Console(quiet=True)
    return vitreous.train(faces, path, epochs=1, settings=TINY, cache=cache, console=quiet).path


@contextmanager
def _live(run: Path, settings: Settings, wanted: Wanted | None = None) -> Iterator[Live]:
    ready = threading.Event()
    found: list[Running] = []
    wrong: list[BaseException] = []

    def on_ready(running: Running) -> None:
        found.append(running)
        ready.set()

    def work() -> None:
        try:
            serve(wanted or Wanted(run, NOTHING), settings, Console(quiet=True), on_ready)
        except BaseException as error:
            wrong.append(error)
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(PATIENCE_S)
    if wrong:
        thread.join()
        raise wrong[0]
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{found[0].port}", timeout=PATIENCE_S
        ) as client:
            yield Live(found[0], client)
    finally:
        found[0].end()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving() -> Callable[..., object]:
    """Serves a run with settings, on a free port."""

    def start(run: Path, wanted: Wanted | None = None, **settings: object):
        return _live(run, Settings(port=0, **settings), wanted)  # pyright: ignore[reportArgumentType]

    return start


@pytest.fixture(scope="session")
def live(run, serving) -> Iterator[Live]:
    """A server that most tests share."""
    with serving(run, max_bytes=200_000, max_pixels=100_000, max_pictures=4, queue=8) as found:
        yield found


@pytest.fixture(scope="session")
def picture(faces) -> bytes:
    return (faces / "happy" / "00000.png").read_bytes()
