"""The command `explain`: why a model answers as it does. The others are in `cli`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vitreous import options, printing

if TYPE_CHECKING:
    from vitreous.core.console import Console
    from vitreous.explanation.methods import MethodName
    from vitreous.explanation.result import Explanation, Explanations
    from vitreous.training.config import Device

#: Bytes of a picture's name that its drawings keep; a file's name has no more than 255, and behind
#: it come what is drawn, a number, and what marks a file that isn't whole yet.
_STEM = 200


@click.command()
@click.argument("run", type=options.PLACE)
@click.argument("pictures", type=options.PATH, nargs=-1)
@click.option("--method",
              type=click.Choice(["relevance", "integrated", "rollout", "attention", "all"]),
              help="What to draw. [the methods that pass their check on these pictures; relevance "
              "where none does]"
              )  # fmt: skip
@click.option("--class", "class_name", metavar="NAME",
              help="The class to explain. [each picture's most probable one]")  # fmt: skip
@click.option("--layer", type=click.IntRange(min=1),
              help="Draw the attention of this block, counted from 1.")  # fmt: skip
@click.option("--head", type=click.IntRange(min=1),
              help="Draw the attention of this head, counted from 1. [mean of all]")  # fmt: skip
@click.option("--out", type=options.PATH, default=Path("explanations"), show_default=True,
              help="Folder for the drawings; nothing in it is replaced.")  # fmt: skip
@click.option("--arrays", is_flag=True,
              help="Write what is drawn as NumPy arrays (.npz), too.")  # fmt: skip
@click.option("--model-pictures", is_flag=True,
              help="Draw what the model has learned without any picture: filters, positions."
              )  # fmt: skip
@options.checkpoint
@options.device
@options.json
@options.quiet
@click.pass_context
def explain(
    context: click.Context,
    run: str,
    pictures: tuple[Path, ...],
    method: "MethodName | Literal['all'] | None",
    class_name: str | None,
    layer: int | None,
    head: int | None,
    out: Path,
    arrays: bool,
    model_pictures: bool,
    labels: Path | None,
    preprocess: tuple[str, ...],
    num_heads: int | None,
    device: "Device",
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw where in PICTURES the answers of RUN come from, and check whether that is so.

    RUN is a run's folder, its weights, or a checkpoint of another library, also on the Hugging Face
    hub: owner/name[@revision]. PICTURES are files, and folders that are searched, but for what
    lies in --out.
    """
    about_pictures = {"--method": method, "--class": class_name, "--layer": layer, "--head": head}
    named = [name for name, value in about_pictures.items() if value is not None]
    if not pictures and (named or not model_pictures):
        instead = "" if named else ", or give --model-pictures"
        what = f"{', '.join(named)}: " if named else ""
        raise click.UsageError(f"{what}name PICTURES to explain{instead}")
    from vitreous import api
    from vitreous.core.files import check_writable

    console = options.console(quiet)
    check_writable(out)
    pictures = _without_drawings(pictures, out, console)
    found = api.explain(
        run,
        *pictures,
        method=method,
        class_name=class_name,
        layer=layer,
        head=head,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        device=device,
        console=console,
    )
    every_head = method in ("attention", "all") and layer is None and head is None
    drawings = [_save(each, out, every_head, arrays) for each in found.pictures]
    of_model = _save_model(found, out, arrays) if model_pictures else {}
    if as_json:
        values = found.to_json()
        for value, files in zip(values["pictures"], drawings, strict=True):
            value["drawings"] = files
        printing.print_json({**values, "model_pictures": of_model})
    else:
        for each, files in zip(found.pictures, drawings, strict=True):
            _print(each, files)
        for file in of_model.values():
            click.echo(printing.printable(file))
    for name, check in found.checks.items():
        if not check.passed:
            console.warn(f"{name} failed its check on this model and these pictures: {check}")
    for file, reason in found.unreadable:
        click.echo(f"error: {file}: {reason}", err=True)
    if found.unreadable:
        context.exit(1)


def _without_drawings(sources: Sequence[Path], out: Path, console: "Console") -> tuple[Path, ...]:
    """The sources, and in the place of a folder that has drawings of before what else it has."""
    from vitreous.data.folder import list_pictures
    from vitreous.data.left_out import warn_of_formats
    from vitreous.errors import DataError

    kept: list[Path] = []
    place = out.resolve()
    for source in sources:
        if not out.is_dir() or source.resolve() not in place.parents:
            kept.append(source)
            continue
        unread: list[Path] = []
        found = list_pictures([source], unread.extend)
        others = [path for path in found if place not in path.resolve().parents]
        if not others:
            raise DataError(f"all pictures in {source} are in {out}, where drawings go (--out)")
        if count := len(found) - len(others):
            if unread:  # else it is told where the whole folder is looked through
                warn_of_formats(unread, console)
            console.info(f"left out: {count:,} pictures in {out}, where drawings go (--out)")
        kept += others if count else [source]
    return tuple(kept)


def _save(
    explanation: "Explanation", folder: Path, every_head: bool, arrays: bool
) -> dict[str, str]:
    """Draw one picture's explanation into a folder, under its own name or the next free one."""
    from vitreous.core.files import first_free

    _make(folder)
    stem = os.fsencode(Path(explanation.file).stem)
    stem = os.fsdecode(stem) if len(stem) <= _STEM else stem[:_STEM].decode("utf-8", "ignore")
    files = {"maps": first_free(folder / stem, ".png")}
    explanation.save(files["maps"])
    if every_head:
        files["attention"] = first_free(folder / f"{stem}-attention", ".png")
        explanation.save_attention(files["attention"])
    if arrays:
        files["arrays"] = first_free(folder / stem, ".npz")
        explanation.save_arrays(files["arrays"])
    return {what: str(path) for what, path in files.items()}


def _save_model(found: "Explanations", folder: Path, arrays: bool) -> dict[str, str]:
    """Draw what the model has learned without any picture, as far as it has."""
    from vitreous.core.files import first_free

    _make(folder)
    files = {"filters": first_free(folder / "model-filters", ".png")}
    found.save_filters(files["filters"])
    if found.positions is not None:
        files["positions"] = first_free(folder / "model-positions", ".png")
        found.save_positions(files["positions"])
    if arrays:
        files["arrays"] = first_free(folder / "model", ".npz")
        found.save_model_arrays(files["arrays"])
    return {what: str(path) for what, path in files.items()}


def _make(folder: Path) -> None:
    from vitreous.core.files import storage_errors

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _print(explanation: "Explanation", files: dict[str, str]) -> None:
    """The answer, what each map is worth, and where it is drawn."""
    answer, chosen = explanation.answer, explanation.label
    file = printing.printable(explanation.file)
    click.echo(f"{answer}  {explanation.probabilities[answer]:.3f}  {file}")
    if chosen != answer:
        click.echo(f"  explained: {chosen}  {explanation.probabilities[chosen]:.3f}")
    for name, found in explanation.maps.items():
        gain = round(found.faithfulness.gain, 2)
        words = f"{'better' if gain > 0 else 'worse'} than random order by {abs(gain):.2f}"
        words = words if gain else "as good as random order"
        failed = "" if explanation.checks[name].passed else ", failed its check"
        click.echo(f"  {name:10}  {words}{failed}")
    for file in files.values():
        click.echo(f"  {printing.printable(file)}")
