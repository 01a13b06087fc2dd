"""The commands that learn: `train` and `pretrain`. The others, and all about them, are in `cli`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from vitreous import options, printing

if TYPE_CHECKING:
    from vitreous.training.config import Device


@click.command()
@options.source
@click.option(
    "--out",
    type=options.PATH,
    help="Folder of the run; must not exist. [runs/<SOURCE>, or with -2, -3 ... behind]",
)
@options.resume
@options.budget
@options.epochs
@click.option("--recipe", type=click.Choice(["scratch", "finetune", "lecture"]),
              help="What chooses the settings. [scratch; finetune with --weights]")  # fmt: skip
@options.model
@options.image_size
@click.option("--init", type=options.PLACE, metavar="RUN",
              help="Begin with the model of this run, pretrained or trained, and learn as from "
              "scratch.")  # fmt: skip
@click.option("--weights", type=options.PLACE, metavar="CHECKPOINT",
              help="Tune the model of this file or folder, of this library or another, or on the "
              "Hugging Face hub: owner/name[@revision]; auto chooses one there, none is from "
              "scratch. [none]")  # fmt: skip
@click.option("--tune", type=click.Choice(["ladder", "probe", "lora", "full"]), default=None,
              help="Of --weights learn a new head alone, low-rank updates, or all weights; or "
              "climb from one to the next and keep the simplest as good as the best. [ladder]"
              )  # fmt: skip
@click.option("--folds", type=click.IntRange(min=2), metavar="N",
              help="Train N times more first, each time scored on another Nth of the pictures. A "
              "budget is divided among all of them.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), metavar="N",
              help="With --folds: that often, each time divided otherwise. [1]")  # fmt: skip
@options.num_heads
@options.preprocess
@click.option("--explain-choice", is_flag=True,
              help="Print, before training, the settings that were chosen for these pictures, this "
              "machine and this budget, and why.")  # fmt: skip
@options.seed
@options.config
@options.assignments
@click.option("--overlay", type=options.PATH, metavar="CSV",
              help="Pictures to drop, relabel or group, as 'vitreous check' proposes.")  # fmt: skip
@options.train_device
@options.tensorboard
@options.cache
@options.quiet
def train(
    source: Path | None,
    resumed: Path | None,
    out: Path | None,
    budget: str | None,
    epochs: float | None,
    recipe: str | None,
    model: str | None,
    image_size: int | None,
    init: str | None,
    weights: str | None,
    tune: Literal["ladder", "probe", "lora", "full"] | None,
    folds: int | None,
    repeats: int | None,
    num_heads: int | None,
    preprocess: tuple[str, ...],
    explain_choice: bool,
    seed: int | None,
    config: Path | None,
    assignments: tuple[str, ...],
    overlay: Path | None,
    device: "Device | None",
    tensorboard: bool,
    cache: Path | None,
    quiet: bool,
) -> None:
    """Learn a classifier from the pictures in SOURCE: a folder of classes, or a table."""
    named = {"--out": out, "--budget": budget, "--epochs": epochs, "--recipe": recipe,
             "--model": model, "--image-size": image_size, "--init": init, "--weights": weights,
             "--tune": tune, "--folds": folds, "--repeats": repeats, "--num-heads": num_heads,
             "--preprocess": preprocess or None,
             "--explain-choice": explain_choice or None, "--seed": seed, "--config": config,
             "--set": assignments or None, "--overlay": overlay, "--device": device}  # fmt: skip
    source = _source_or_resume(source, resumed, named, cache, tensorboard, quiet)
    if source is None:
        return
    from vitreous import api
    from vitreous.core.config import parse_assignments
    from vitreous.recipes.configure import parse_budget

    if init is not None and weights is not None:
        raise click.UsageError("--init and --weights both say what to begin with: give one")
    api.train(
        source,
        out,
        epochs=epochs,
        budget_s=None if budget is None else parse_budget(budget),
        recipe=recipe,
        model=model,
        image_size=image_size,
        init=init,
        weights=weights,
        tune=tune,
        folds=folds,
        repeats=repeats,
        preprocess=preprocess,
        num_heads=num_heads,
        seed=seed,
        config=config,
        settings=parse_assignments(assignments),
        device=device,
        cache=cache,
        overlay=overlay,
        tensorboard=tensorboard,
        console=options.console(quiet),
        on_choice=printing.print_choice if explain_choice else None,
        started=options.STARTED,
    )


@click.command()
@options.source
@click.option("--out", type=options.PATH,
              help="Folder of the run; must not exist. [runs/<SOURCE>-pretrained, "
              "or with -2, -3 ... behind]")  # fmt: skip
@options.resume
@options.budget
@options.epochs
@options.model
@options.image_size
@options.seed
@options.config
@options.assignments
@options.train_device
@options.tensorboard
@options.cache
@options.quiet
def pretrain(
    source: Path | None,
    out: Path | None,
    resumed: Path | None,
    budget: str | None,
    epochs: float | None,
    model: str | None,
    image_size: int | None,
    seed: int | None,
    config: Path | None,
    assignments: tuple[str, ...],
    device: "Device | None",
    tensorboard: bool,
    cache: Path | None,
    quiet: bool,
) -> None:
    """Learn from the pictures in SOURCE without labels: first weights for train --init."""
    named = {"--out": out, "--budget": budget, "--epochs": epochs, "--model": model,
             "--image-size": image_size, "--seed": seed, "--config": config,
             "--set": assignments or None, "--device": device}  # fmt: skip
    source = _source_or_resume(source, resumed, named, cache, tensorboard, quiet)
    if source is None:
        return
    from vitreous import api
    from vitreous.core.config import parse_assignments
    from vitreous.recipes.configure import parse_budget

    api.pretrain(
        source,
        out,
        epochs=epochs,
        budget_s=None if budget is None else parse_budget(budget),
        model=model,
        image_size=image_size,
        seed=seed,
        config=config,
        settings=parse_assignments(assignments),
        device=device,
        cache=cache,
        tensorboard=tensorboard,
        console=options.console(quiet),
        started=options.STARTED,
    )


def _source_or_resume(
    source: Path | None,
    resumed: Path | None,
    named: Mapping[str, Any],
    cache: Path | None,
    tensorboard: bool,
    quiet: bool,
) -> Path | None:
    """The SOURCE of a new run; with --resume the old one goes on here, and there is none.

    Options of which one makes the other meaningless are refused.
    """
    if (source is None) == (resumed is None):
        raise click.UsageError("name either a SOURCE to learn from or --resume RUN")
    if named["--budget"] is not None and named["--epochs"] is not None:
        raise click.UsageError("--budget and --epochs exclude each other: give one of them")
    if resumed is None:
        return source
    for option, value in named.items():
        if value is not None:
            raise click.UsageError(f"{option} can't change a run that has begun (--resume)")
    from vitreous import api

    api.resume(resumed, cache=cache, tensorboard=tensorboard, console=options.console(quiet))
    return None
