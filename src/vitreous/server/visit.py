"""`serve` as a person asks for it; what it takes is an extra, and is imported when it is called."""

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from vitreous.core.console import Console
from vitreous.errors import ConfigError
from vitreous.serving.runtimes import Precision, Runtime
from vitreous.serving.weights import told_by
from vitreous.training.config import Device

#: What the server is made of, beside this library.
_SERVER = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")


def serve(
    run: str | PathLike[str],
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int | None = None,
    queue: int | None = None,
    max_bytes: int = 32_000_000,
    max_pixels: int = 50_000_000,
    max_pictures: int = 32,
    timeout_s: float = 30.0,
    api_key_file: str | PathLike[str] | None = None,
    allow_origins: Sequence[str] = (),
    allow_frames: Sequence[str] = (),
    labels: str | PathLike[str] | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    runtime: Runtime | None = None,
    precision: Precision = "float32",
    device: Device = "auto",
    console: Console | None = None,
) -> None:
    """Answer over HTTP, until SIGTERM or Ctrl-C ends it without losing a request.

    Args:
        run: a run's folder, a weights file of one, a sealed file, or another library's checkpoint,
            also on a hub.
        name: what the page and ``GET /v1/model`` call it; by default that of `run`.
        host: address to listen on; by default this machine alone can ask.
        port: 0 for any that is free.
        workers: pictures that are worked on at a time; by default one for each core.
        queue: pictures that may wait before others are turned away; by default one for each
            worker.
        max_bytes: of the body of a request.
        max_pixels: of a picture, before it is decoded.
        max_pictures: of a request.
        timeout_s: for a request to arrive, and again for its answer.
        api_key_file: a file with the key that requests must know; by default the environment
            variable ``VITREOUS_API_KEY``, and without that no key is asked for.
        allow_origins: of other web pages that may ask.
        allow_frames: of other web pages that may show this one inside them.
        labels: of a checkpoint, as for `evaluate`.
        preprocess: likewise.
        num_heads: likewise.
        runtime: as for `predict`.
        precision: as for `predict`.
        device: as for `predict`.
        console: where messages go.

    Raises:
        ConfigError: for a limit that makes no sense, a port that is taken, a library that isn't
            installed, or where an event loop runs already, as in a notebook's cell.
        RunError: where there is no trained model.
    """
    if missing := [name for name in _SERVER if find_spec(name) is None]:
        raise ConfigError(f'{", ".join(missing)} not installed: pip install "vitreous[serve]"')
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:  # a notebook's cell has one
        raise ConfigError(
            "an event loop runs here already, and serve() goes on until it is ended: call it in a "
            "thread of its own, or run 'vitreous serve' in a terminal"
        )
    from vitreous.server.lifecycle import serve as run_server
    from vitreous.server.model import Wanted
    from vitreous.server.settings import Settings, read_key

    settings = Settings(
        host=host,
        port=port,
        workers=workers,
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_pictures=max_pictures,
        timeout_s=timeout_s,
        api_key=read_key(Path(api_key_file) if api_key_file else None),
        allow_origins=tuple(allow_origins),
        allow_frames=tuple(allow_frames),
    )
    told = told_by(labels, preprocess, num_heads)
    wanted = Wanted(run, told, runtime, precision, device, name=name)
    run_server(wanted, settings, console or Console())
