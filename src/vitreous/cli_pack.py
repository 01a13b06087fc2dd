"""The command `pack`; all others, and all about them, are in `cli`."""

from pathlib import Path
from typing import Literal

import click

from vitreous import options, printing


@click.command()
@click.argument("source", type=options.PATH)
@click.option("--out", type=options.PATH, required=True, metavar="SHARDS", help="New folder.")
@click.option("--format", "form", type=click.Choice(["tar", "parquet"]), default="tar",
              show_default=True,
              help="WebDataset's tars, or Parquet as Hugging Face datasets has it.")  # fmt: skip
@click.option("--shard-mb", type=click.FloatRange(min=0, min_open=True), default=256.0,
              show_default=True, help="A shard's size, about.")  # fmt: skip
@click.option("--size", type=click.IntRange(min=1), metavar="PIXELS",
              help="Fit pictures to squares of this side, as PNGs. [files as they are]"
              )  # fmt: skip
@click.option("--unlabelled", is_flag=True, help="Any folder of pictures, for pretraining.")
@options.seed
@options.quiet
def pack(
    source: Path,
    out: Path,
    form: Literal["tar", "parquet"],
    shard_mb: float,
    size: int | None,
    unlabelled: bool,
    seed: int | None,
    quiet: bool,
) -> None:
    """Write the pictures of SOURCE into a few large files, to train from here or from a url.

    Splits and classes are kept; files that can't be read are left out and named. What was stopped
    goes on where it was when the same is packed again.
    """
    from vitreous import api

    packed = api.pack(
        source,
        out,
        form=form,
        shard_mb=shard_mb,
        size=size,
        labelled=not unlabelled,
        seed=seed or 0,
        console=options.console(quiet),
    )
    click.echo(printing.printable(str(packed)))
