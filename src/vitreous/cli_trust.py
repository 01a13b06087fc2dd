"""The commands about trust: how sure a run may be, and whether one is better than another."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vitreous import options, printing

if TYPE_CHECKING:
    from vitreous.training.config import Device


@click.command()
@click.argument("run", type=options.PLACE)
@click.argument("data", type=options.PATH)
@options.split("calibration, else without a split, else test")
@options.checkpoint
@options.device
@options.cache
@options.quiet
def calibrate(
    run: str,
    data: Path,
    split: str | None,
    labels: Path | None,
    preprocess: tuple[str, ...],
    num_heads: int | None,
    device: "Device",
    cache: Path | None,
    quiet: bool,
) -> None:
    """Learn on DATA, labelled pictures that RUN never saw, what predict may promise.

    RUN is a run's folder, its weights, or a checkpoint of another library. What is learned is
    written beside the weights.
    """
    from vitreous import api

    calibration = api.calibrate(
        run,
        data,
        split=split,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        device=device,
        cache=cache,
        console=options.console(quiet),
    )
    printing.print_calibration(calibration)


@click.command()
@click.argument("a", type=options.PLACE)
@click.argument("b", type=options.PLACE)
@click.argument("data", type=options.PATH)
@options.split("test, else valid, else those without a split")
@options.device
@options.cache
@options.json
@options.quiet
def compare(
    a: str,
    b: str,
    data: Path,
    split: str | None,
    device: "Device",
    cache: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say whether run B is better than run A on the same pictures, DATA."""
    from vitreous import api
    from vitreous.serving.hub import called

    found = api.compare(
        a, b, data, split=split, device=device, cache=cache, console=options.console(quiet)
    )
    if as_json:
        printing.print_json(found.to_json())
        return
    short = called(a), called(b)
    printing.print_comparison(found, short if short[0] != short[1] else (a, b))
