"""The command `diagnose`; all others, and all about them, are in `cli`."""

from pathlib import Path

import click

from vitreous import options, printing


@click.command()
@click.argument("run", type=options.PATH)
@click.option("--experiments/--no-experiments", default=True,
              help="Put causes to the test by short trainings.")  # fmt: skip
@click.option("--budget", default="60s", show_default=True,
              help="Time for those trainings, about: 30s, 2m.")  # fmt: skip
@options.json
@options.quiet
def diagnose(run: Path, experiments: bool, budget: str, as_json: bool, quiet: bool) -> None:
    """Say why RUN is stuck: what its log, weights and pictures show, and what to do next.

    RUN is a folder of train, finished, stopped, or ended by a loss of NaN. At most three
    causes are named, the likeliest first; a run that learned is left in peace.
    """
    from vitreous import api
    from vitreous.recipes.configure import parse_budget

    diagnosis = api.diagnose(
        run,
        experiments=experiments,
        budget_s=parse_budget(budget),
        console=options.console(quiet),
    )
    if as_json:
        printing.print_json(diagnosis.to_json())
    else:
        printing.print_diagnosis(diagnosis)
