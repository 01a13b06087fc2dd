"""What the commands print on standard output: JSON for programs, tables for people."""

import json
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vitreous.diagnosis.causes import Diagnosis
    from vitreous.doctor.findings import Checkup
    from vitreous.evaluation.calibration import Calibration
    from vitreous.evaluation.comparison import Comparison
    from vitreous.evaluation.metrics import Evaluation
    from vitreous.exporting.gate import Gate
    from vitreous.labels.audit import Audit
    from vitreous.recipes.facts import Choice
    from vitreous.serving.tune import Tuning


def print_json(value: Any) -> None:
    """One line of JSON."""
    click.echo(printable(json.dumps(value, ensure_ascii=False)))


def printable(text: str) -> str:
    """Bytes of a name that is no UTF-8 as escapes, which are JSON's own too."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def print_choice(choice: "Choice") -> None:
    """The settings that a recipe chose, each with its reason below it."""
    for settings, value, why in choice.rows():
        click.echo(f"{settings} = {value}\n    {why}")


#: Of a table of all classes against all; more don't fit beside each other.
_MOST_COLUMNS = 20


def print_evaluation(score: "Evaluation") -> None:
    """Class by class, what is taken for what, the score and what to make of it."""
    from vitreous.evaluation.verdict import reliability_in_words, verdict_in_full

    rows = [
        (name, f"{part.precision:.3f}", f"{part.recall.value:.3f}", f"{part.f1:.3f}",
         str(part.support))
        for name, part in score.per_class.items()
    ]  # fmt: skip
    print_table("classes", ("class", "precision", "recall", "F1", "pictures"), rows)
    if len(score.classes) <= _MOST_COLUMNS:
        head = ("true \\ answered", *score.classes)
        counts = zip(score.classes, score.confusion, strict=True)
        print_table("confusion", head, [(name, *map(str, row)) for name, row in counts])
    for name, interval in (("accuracy", score.accuracy), ("balanced", score.balanced_accuracy)):
        click.echo(f"{name:9} {interval.value:.3f}  ({interval.low:.3f} to {interval.high:.3f})")
    if score.reliability:
        click.echo(reliability_in_words(score))
    if score.unreadable:
        click.echo(f"{len(score.unreadable)} unreadable files were left out")
    click.echo(verdict_in_full(score))


def print_answer(answer: dict[str, Any]) -> None:
    """What a picture is, how surely, what else it may be, or that it is none of these."""
    file = printable(answer["file"])
    if answer.get("refused"):
        click.echo(f"none of these: {answer['reason']}  {file}")
        return
    others = answer.get("set", [])[1:]
    also = f" or {', '.join(others)}" if others else ""
    click.echo(f"{answer['label']}{also}  {answer['probability']:.3f}  {file}")


def print_calibration(calibration: "Calibration") -> None:
    """What the calibration pictures allow to promise."""
    from vitreous.evaluation.conformal import SURE, needed_for
    from vitreous.evaluation.refusal import KEPT

    count = len(calibration.scores.labels)
    shares = [share for share in (0.5, 0.8, 0.9, 0.95, 0.99) if count >= needed_for(share)]
    most = f"{max(shares):g} and less" if shares else "nothing yet"
    click.echo(f"predict --sets promises, {100 * SURE:.0f} % sure, by {count} pictures: {most}")
    if calibration.refusal is None:
        click.echo("predict --refuse can't be: nobody knows what this checkpoint learned from")
    elif (refusal := calibration.refusal).promised:
        click.echo(f"predict --refuse keeps at least {100 * KEPT:.0f} % of such pictures")
    else:
        click.echo(f"predict --refuse promises nothing yet: that takes {refusal.needed}")


def print_comparison(found: "Comparison", names: tuple[str, str]) -> None:
    """Both scores, the difference, and what to make of it."""
    from vitreous.evaluation.comparison import comparison_in_words

    rows = [
        (name, *(f"{part[key].value:.3f}" for part in (found.accuracy, found.balanced_accuracy)),
         str(found.only_right[key]))
        for name, key in zip(names, "ab", strict=True)
    ]  # fmt: skip
    print_table(f"{found.n} pictures", ("run", "accuracy", "balanced", "alone right"), rows)
    balanced = found.balanced_gain
    span = f"{100 * balanced.low:+.1f} to {100 * balanced.high:+.1f}"
    click.echo(
        f"balanced accuracy {100 * balanced.value:+.1f} points ({span}); McNemar's p "
        f"{found.p_value:.2g}"
    )
    click.echo(comparison_in_words(found, names))


def print_gate(gate: "Gate") -> None:
    """Accuracy, time and size with and without fewer bits, and what was decided."""
    found = gate.comparison
    rows = [
        (name, f"{found.accuracy[key].value:.3f}", f"{found.balanced_accuracy[key].value:.3f}",
         str(found.only_right[key]), f"{time:.2f}", f"{size:.2f}")
        for name, key, time, size in zip(
            ("float32", gate.precision), "ab", gate.milliseconds, gate.megabytes, strict=True)
    ]  # fmt: skip
    head = ("precision", "accuracy", "balanced", "alone right", "ms a picture", "MB")
    print_table(f"{found.n:,} pictures, one thread", head, rows)
    smaller = gate.megabytes[0] / gate.megabytes[1]
    click.echo(f"{gate.speedup:.2f} times as fast, {smaller:.1f} times smaller")
    click.echo(gate.in_words())


def print_tuning(tuning: "Tuning") -> None:
    """How long each way took, what was chosen and where that is kept."""
    rows = [
        (timing.runtime, str(timing.threads), f"{timing.one_ms:.2f}", f"{timing.many_ms:.2f}")
        for timing in tuning.timings
    ]
    print_table(
        "milliseconds a picture", ("runtime", "threads", "one at a time", "32 at once"), rows
    )
    if tuning.missing:
        click.echo(f"not installed and not measured: {', '.join(tuning.missing)}")
    choice = tuning.choice
    threads = f"{choice.threads} thread{'s' if choice.threads > 1 else ''}"
    click.echo(f"chosen: {choice.runtime} with {threads}, kept in {tuning.path}")


#: Findings of one kind that are told, and files of one finding.
_TOLD, _FILES = 3, 3


def print_checkup(checkup: "Checkup") -> None:
    """The findings, the worst first, each kind with what to do next."""
    parts = ", ".join(f"{split} {count:,}" for split, count in checkup.pictures.items() if split)
    where = f"{checkup.source}{f' ({parts})' if parts else ''}"
    click.echo(f"{where}: {checkup.verdict}")
    colours = {"error": "red", "warning": "yellow", "note": None}
    for section in checkup.sections:
        findings = section.findings
        click.echo()
        click.secho(section.severity, nl=False, fg=colours[section.severity])
        click.echo(f"  {section.title} ({section.kind}): {len(findings):,}")
        for finding in findings[:_TOLD]:
            files = [checkup.shown(path) for path in finding.files[:_FILES]]
            more = [f"{len(finding.files) - _FILES:,} more"] if len(finding.files) > _FILES else []
            told = ": ".join(filter(None, (", ".join(files + more), finding.detail)))
            click.echo(f"    {printable(told)}")
        if len(findings) > _TOLD:
            click.echo(f"    and {len(findings) - _TOLD:,} more")
        click.echo(f"  next: {section.advice}")
    if checkup.page:
        click.echo(f"\npage: {checkup.page}")
    if checkup.overlay and checkup.proposal:
        click.echo(f"proposal: {checkup.overlay}, {len(checkup.proposal):,} lines to look through")
        source, overlay = quote(str(checkup.source)), quote(str(checkup.overlay))
        click.echo(f"next: vitreous train {source} --overlay {overlay}")


#: Suspects that are told.
_SUSPECTS = 10


def print_audit(audit: "Audit") -> None:
    """The labels likeliest wrong, what is labelled as what, and what to do next."""
    for one in audit.suspects[:_SUSPECTS]:
        click.echo(
            f"{one.label} {one.self_confidence:.3f}, looks like {one.suggested} "
            f"{one.probability:.3f}  {printable(audit.shown(one))}"
        )
    if len(audit.suspects) > _SUSPECTS:
        click.echo(f"and {len(audit.suspects) - _SUSPECTS:,} more")
    if audit.errors.means_something and len(audit.classes) <= _MOST_COLUMNS:
        head = ("label \\ belongs to", *audit.classes)
        noise = zip(audit.classes, audit.errors.noise, strict=True)
        rows = [(name, *(f"{count:.0f}" for count in row)) for name, row in noise]
        print_table("expected numbers", head, rows)
    click.echo(audit.verdict)
    if audit.page and audit.suspects:
        click.echo(f"page: {audit.page}, to look through them and save an overlay")
        click.echo(
            f"proposal: {audit.overlay}, which leaves them out, looked at or not, "
            "but no more than half of a class"
        )
        source, overlay = quote(str(audit.source)), quote(str(audit.overlay))
        click.echo(f"next: vitreous train {source} --overlay {overlay}")


def print_diagnosis(diagnosis: "Diagnosis") -> None:
    """Where the run stands, and each cause with its evidence and what to do next."""
    click.echo(diagnosis.seen)
    if not diagnosis.causes:
        click.echo("Nothing is named: it learned, or nothing that is known here explains it.")
    for number, cause in enumerate(diagnosis.causes, start=1):
        click.echo()
        click.secho(f"{number}. {cause.title}", bold=True)
        for text in filter(None, (cause.evidence, cause.tried)):
            click.echo(f"   {printable(text)}")
        click.echo(f"   next: {cause.advice}")
        if cause.command:
            click.echo(f"   {printable(cause.command)}")
    if diagnosis.tried:
        click.echo(f"\n{diagnosis.tried}")


def print_table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Columns under their names; the first holds names, the others figures."""
    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", box=None)
    for number, name in enumerate(head):
        table.add_column(escape(name), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console = RichConsole(highlight=False, emoji=False)
    # Wider than the window or the 80 columns of a pipe, its figures would be cut off.
    whole = console.measure(table, options=console.options.update(width=10_000)).maximum
    RichConsole(highlight=False, emoji=False, width=max(console.width, whole)).print(table)
