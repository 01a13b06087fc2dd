"""The command `serve`: a model over HTTP. The others are in `cli`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vitreous import options

if TYPE_CHECKING:
    from vitreous.serving.runtimes import Precision, Runtime
    from vitreous.training.config import Device


@click.command()
@click.argument("run", type=options.PLACE)
@click.option("--name", help="What the page and GET /v1/model call it. [that of RUN]")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; 0.0.0.0 for all of this machine's.")  # fmt: skip
@click.option("--port", type=int, default=8000, show_default=True, help="0 for any that is free.")
@click.option("--workers", type=int, help="Pictures worked on at a time. [one for each core]")
@click.option("--queue", type=int,
              help="Pictures that may wait before others are turned away. "
                   "[one for each worker; 64 on a GPU]")  # fmt: skip
@click.option("--max-bytes", type=int, default=32_000_000, show_default=True,
              help="Of the body of a request.")  # fmt: skip
@click.option("--max-pixels", type=int, default=50_000_000, show_default=True,
              help="Of a picture.")  # fmt: skip
@click.option("--max-pictures", type=int, default=32, show_default=True, help="Of a request.")
@click.option("--timeout", type=float, default=30.0, show_default=True,
              help="Seconds for a request to arrive, and again for its answer.")  # fmt: skip
@click.option("--api-key-file", type=options.PATH,
              help="File with the key that requests must know. [VITREOUS_API_KEY]")  # fmt: skip
@click.option("--allow-origin", "allow_origins", multiple=True, metavar="ORIGIN",
              help="Another web page that may ask, such as https://example.org.")  # fmt: skip
@click.option("--allow-frame", "allow_frames", multiple=True, metavar="ORIGIN",
              help="Another web page that may show this one inside it.")  # fmt: skip
@options.checkpoint
@options.runtime
@options.precision
@options.device
@options.quiet
def serve(
    run: str,
    name: str | None,
    host: str,
    port: int,
    workers: int | None,
    queue: int | None,
    max_bytes: int,
    max_pixels: int,
    max_pictures: int,
    timeout: float,
    api_key_file: Path | None,
    allow_origins: tuple[str, ...],
    allow_frames: tuple[str, ...],
    labels: Path | None,
    preprocess: tuple[str, ...],
    num_heads: int | None,
    runtime: "Runtime | None",
    precision: "Precision",
    device: "Device",
    quiet: bool,
) -> None:
    """Answer over HTTP with RUN, and show a page to drop pictures on.

    RUN is a run's folder, its weights, a sealed onnx file, or a checkpoint of another library, also
    on the Hugging Face hub: owner/name[@revision]. SIGHUP opens it anew, SIGTERM or Ctrl-C ends.
    """
    from vitreous import api

    api.serve(
        run,
        name=name,
        host=host,
        port=port,
        workers=workers,
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_pictures=max_pictures,
        timeout_s=timeout,
        api_key_file=api_key_file,
        allow_origins=allow_origins,
        allow_frames=allow_frames,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        runtime=runtime,
        precision=precision,
        device=device,
        console=options.console(quiet),
    )
