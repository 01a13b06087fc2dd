"""The command `check`; all others, and all about them, are in `cli`."""

from pathlib import Path

import click

from vitreous import options, printing


@click.command()
@click.argument("source", type=options.PATH)
@click.option("--out", type=options.PATH,
              help="Folder for the page and overlay.csv; must not exist. [checks/<SOURCE>; with "
              "--json none]")  # fmt: skip
@click.option("--fail-on", type=click.Choice(["error", "warning"]),
              help="Exit with status 1 where such findings, or worse, are. [never]")  # fmt: skip
@options.json
@options.quiet
@click.pass_context
def check(
    context: click.Context,
    source: Path,
    out: Path | None,
    fail_on: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Look for what is wrong with SOURCE: a folder of classes, or a table.

    Damaged files, copies, leaks between splits, labels that contradict each other, classes that can
    be told by size or edge alone. Nothing among the pictures is changed; a page and a proposal for
    train --overlay are written beside. The exit status is 0 whether or not there are findings.
    """
    from vitreous import api
    from vitreous.core.files import first_free
    from vitreous.data.remote import name_of

    if out is None and not as_json:
        out = first_free(Path("checks") / name_of(source))
    checkup = api.check(source, out, console=options.console(quiet))
    if as_json:
        printing.print_json(checkup.to_json())
    else:
        printing.print_checkup(checkup)
    counts = checkup.counts
    if fail_on and (counts["error"] or (fail_on == "warning" and counts["warning"])):
        context.exit(1)
