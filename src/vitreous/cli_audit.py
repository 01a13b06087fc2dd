"""The command `audit`: which labels are probably wrong. The others are in `cli`."""

from pathlib import Path

import click

from vitreous import options, printing


@click.command()
@click.argument("source", type=options.PATH)
@click.option("--out", type=options.PATH,
              help="Folder for the page and overlay.csv; must not exist. [audits/<SOURCE>; with "
              "--json none]")  # fmt: skip
@click.option("--folds", type=click.IntRange(min=2), metavar="N",
              help="Of pictures: train so many times, each time without another Nth of them. [5]"
              )  # fmt: skip
@options.budget
@options.epochs
@options.assignments
@options.cache
@options.json
@options.quiet
def audit(
    source: Path,
    out: Path | None,
    folds: int | None,
    budget: str | None,
    epochs: float | None,
    assignments: tuple[str, ...],
    cache: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Look for wrong labels in SOURCE: a run of train --folds, or a folder of classes or a table.

    Of pictures a run with folds is trained from scratch first, in runs/<SOURCE>. A page to look
    through the suspects and a proposal for train --overlay are written; labels and pictures stay as
    they are.
    """
    from vitreous import api
    from vitreous.core.config import parse_assignments
    from vitreous.core.files import first_free
    from vitreous.data.remote import name_of
    from vitreous.recipes.configure import parse_budget

    if budget is not None and epochs is not None:
        raise click.UsageError("--budget and --epochs exclude each other: give one of them")
    if out is None and not as_json:
        out = first_free(Path("audits") / name_of(source))
    found = api.audit(
        source,
        out,
        folds=folds,
        epochs=epochs,
        budget_s=None if budget is None else parse_budget(budget),
        settings=parse_assignments(assignments),
        cache=cache,
        console=options.console(quiet),
        started=options.STARTED,
    )
    if as_json:
        printing.print_json(found.to_json())
    else:
        printing.print_audit(found)
