"""The `vitreous` command: a sub-command for each function of `api`, some in other modules.

Those that learn are in `cli_train`, the others in modules named by them. Results go to standard
output, everything else to standard error. PyTorch is imported inside the commands, so that
``vitreous --help`` answers at once.
"""

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from vitreous import __version__, options, printing
from vitreous.cli_audit import audit
from vitreous.cli_check import check
from vitreous.cli_diagnose import diagnose
from vitreous.cli_explain import explain
from vitreous.cli_export import export
from vitreous.cli_pack import pack
from vitreous.cli_serve import serve
from vitreous.cli_train import pretrain, train
from vitreous.cli_trust import calibrate, compare
from vitreous.core.machine import allowed_cores, usable_cores
from vitreous.core.memory import is_out_of_memory, keep_freed_memory
from vitreous.errors import UserError, VitreousError

if TYPE_CHECKING:
    from vitreous.serving.runtimes import Precision, Runtime
    from vitreous.training.config import Device


#: The character in front of the commands has click leave their lines as they are.
_HELP = """Vision Transformers for your own pictures.

\b
  vitreous check faces/                      one sub-folder a class
  vitreous train faces/ --out runs/faces
  vitreous evaluate runs/faces
  vitreous predict runs/faces photo.jpg
  vitreous explain runs/faces photo.jpg
  vitreous serve runs/faces
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vitreous")
def cli() -> None:
    """All commands; their help is `_HELP`."""


cli.add_command(check)
cli.add_command(audit)
cli.add_command(pack)
cli.add_command(train)
cli.add_command(pretrain)
cli.add_command(explain)
cli.add_command(export)
cli.add_command(diagnose)
cli.add_command(calibrate)
cli.add_command(compare)
cli.add_command(serve)


@cli.command()
@click.argument("run", type=options.PLACE)
@click.argument("data", type=options.PATH, required=False)
@options.split("test, else valid, else those without a split")
@options.checkpoint
@options.runtime
@options.precision
@options.device
@options.cache
@options.json
@options.quiet
def evaluate(
    run: str,
    data: Path | None,
    split: str | None,
    labels: Path | None,
    preprocess: tuple[str, ...],
    num_heads: int | None,
    runtime: "Runtime | None",
    precision: "Precision",
    device: "Device",
    cache: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score RUN on DATA: a folder of classes or a table; without DATA on what it held back.

    RUN is a run's folder, its weights, a sealed file, or a checkpoint of another library, also on
    the Hugging Face hub: owner/name[@revision].
    """
    from vitreous import api

    score = api.evaluate(
        run,
        data,
        split=split,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        runtime=runtime,
        precision=precision,
        device=device,
        cache=cache,
        console=options.console(quiet),
    )
    if as_json:
        printing.print_json(score.to_json())
    else:
        printing.print_evaluation(score)


@cli.command()
@click.argument("run", type=options.PLACE)
@click.argument("pictures", type=options.PATH, nargs=-1, required=True)
@click.option("--sets", type=float, metavar="SHARE",
              help="Answer with sets of classes that hold the true one in at least this share of "
              "the pictures, such as 0.9.")  # fmt: skip
@click.option("--by-class", is_flag=True, help="With --sets: in this share of each class.")
@click.option("--refuse", is_flag=True,
              help="Answer none of these where a picture is unlike all RUN learned from."
              )  # fmt: skip
@options.checkpoint
@options.runtime
@options.precision
@options.device
@options.json
@options.quiet
@click.pass_context
def predict(
    context: click.Context,
    run: str,
    pictures: tuple[Path, ...],
    sets: float | None,
    by_class: bool,
    refuse: bool,
    labels: Path | None,
    preprocess: tuple[str, ...],
    num_heads: int | None,
    runtime: "Runtime | None",
    precision: "Precision",
    device: "Device",
    as_json: bool,
    quiet: bool,
) -> None:
    """Classify PICTURES: files, and folders that are searched.

    RUN is a run's folder, its weights, a sealed file, or a checkpoint of another library, also on
    the Hugging Face hub: owner/name[@revision].
    """
    from vitreous import api

    answers = api.predict(
        run,
        *pictures,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        runtime=runtime,
        precision=precision,
        device=device,
        sets=sets,
        by_class=by_class,
        refuse=refuse,
        console=options.console(quiet),
    )
    if as_json:
        printing.print_json(answers)
    for answer in answers:
        if "error" in answer:
            click.echo(f"error: {answer['file']}: {answer['error']}", err=True)
        elif not as_json:
            printing.print_answer(answer)
    if any("error" in answer for answer in answers):
        context.exit(1)


@cli.command()
@click.argument("run", type=options.PLACE)
@options.checkpoint
@options.json
@options.quiet
def tune(
    run: str,
    labels: Path | None,
    preprocess: tuple[str, ...],
    num_heads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure what runs RUN fastest on this machine; predict and evaluate then use it."""
    from vitreous import api

    tuning = api.tune(
        run,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        console=options.console(quiet),
    )
    if as_json:
        printing.print_json(tuning.to_json())
    else:
        printing.print_tuning(tuning)


@cli.command()
@click.argument("model")
@click.option("--image-size", type=int, help="Side in pixels, instead of the model's.")
@click.option("--classes", type=int, help="Number of classes, instead of the model's.")
@options.num_heads
@options.json
def summary(
    model: str, image_size: int | None, classes: int | None, num_heads: int | None, as_json: bool
) -> None:
    """Parameters, tokens and operations of MODEL: a preset (S/16, say), a run or a checkpoint."""
    from vitreous import api

    found = api.summary(model, image_size=image_size, classes=classes, num_heads=num_heads)
    if as_json:
        printing.print_json(found.to_json())
        return
    rows = [(row.name, row.kind, " x ".join(map(str, row.output)), f"{row.parameters:,}")
            for row in found.layers]  # fmt: skip
    printing.print_table(model, ("layer", "kind", "output", "parameters"), rows)
    click.echo(f"{found.parameters:,} parameters, {found.tokens} tokens, "
               f"{found.flops / 1e9:.3f} GFLOP a picture")  # fmt: skip


@cli.command()
@click.argument("picture", type=options.PATH)
@click.option("--out", type=options.PATH, help="The drawing. [PICTURE-patches.png in this folder]")
@click.option("--size", type=int, default=16, show_default=True, help="Side of a patch in pixels.")
@click.option("--stride", type=int, help="Pixels from a patch to the next. [--size]")
@click.option("--rate", type=int, default=1, show_default=True,
              help="Pixels between neighbours inside a patch.")  # fmt: skip
@click.option("--padding", type=click.Choice(["VALID", "SAME"], case_sensitive=False),
              default="VALID", show_default=True,
              help="Leave out what fills no patch, or pad with black.")  # fmt: skip
@click.option("--image-size", type=int, default=256, show_default=True,
              help="Side in pixels that the picture gets first.")  # fmt: skip
def patches(
    picture: Path,
    out: Path | None,
    size: int,
    stride: int | None,
    rate: int,
    padding: Literal["VALID", "SAME"],
    image_size: int,
) -> None:
    """Draw the patches of PICTURE: what a Vision Transformer is given."""
    from vitreous import api

    click.echo(
        api.patches(
            picture,
            out,
            size=size,
            stride=stride,
            rate=rate,
            padding=padding,
            image_size=image_size,
        )
    )


@cli.command()
@click.argument("folder", type=options.PATH, required=False)
@options.quiet
def demo(folder: Path | None, quiet: bool) -> None:
    """Draw faces, learn them, test on unseen ones: everything once, in about three minutes."""
    from vitreous import api

    console = options.console(quiet)
    run = api.demo(folder, console=console, started=options.STARTED)
    pictures = sorted((run.path.parent / "faces" / "test").glob("*/00000.png"))
    for answer in api.predict(run.path, *pictures, console=options.console(quiet=True)):
        printing.print_answer(answer)
    click.echo(printing.printable(f"report: {run.report}"))


def main() -> None:
    """Run the command; a person's mistake ends in one line and status 2, never in a traceback."""
    # Threads that spin for long take the cores from their own partners when a neighbour is busy;
    # threads that don't spin at all are woken late. This has to stand before PyTorch is imported,
    # so the command sets it, not the package.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # PyTorch counts a container's cores, not the time that it may have on them.
    if usable_cores() < len(allowed_cores()):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    # Of the whole process again, so the command's business too.
    keep_freed_memory()
    if isinstance(sys.stdout, TextIOWrapper):  # a name that is no UTF-8 ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(_status(_run))


def _run() -> Any:
    """The command, in one of several processes where `torchrun` has started them."""
    command = partial(cli.main, standalone_mode=False)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return command()
    from vitreous.processes import first_leads
    from vitreous.training.distributed import is_started_with_others

    return first_leads(command) if is_started_with_others() else command()


def _status(command: Callable[[], Any]) -> int:
    try:
        result = command()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except VitreousError as error:
        word = "error: " if isinstance(error, UserError) or error.exit_status == 1 else ""
        click.echo(f"{word}{error}", err=True)
        return error.exit_status
    except BrokenPipeError:
        return 1
    except OSError as error:  # of a place that is named, before anything there is read
        if not (isinstance(error, PermissionError) or error.errno == errno.ENAMETOOLONG):
            raise
        click.echo(f"error: can't read {error.filename}: {error.strerror}", err=True)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        click.echo(
            "error: memory is too small for this: close other programs, compute elsewhere "
            "(--device), or take a smaller model",
            err=True,
        )
        return 1
