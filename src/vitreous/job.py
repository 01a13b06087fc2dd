"""One job from listed pictures to its report: what a new run and a resumed one share.

`begin` starts a new run, `work` does what its configuration is for, with labels (`supervised`) or
without, and a `Run` is what is left. `api` decides what to do; the parts that do it know nothing of
one another and are joined here.
"""

import json
from dataclasses import replace
from html import escape
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Any

from vitreous.core.config import dump_toml
from vitreous.core.files import read_json, write_json
from vitreous.core.launch import first_files, run_place
from vitreous.core.memory import is_out_of_memory
from vitreous.core.run import RunFolder
from vitreous.data.dataset import Dataset
from vitreous.data.folder import Listing
from vitreous.data.folds import fold_datasets
from vitreous.data.overlay import Overlay
from vitreous.data.preprocess import denormalise
from vitreous.data.remote import is_remote
from vitreous.doctor.findings import Checkup
from vitreous.doctor.first_look import look_first
from vitreous.errors import Interrupted, StorageError, TrainingError
from vitreous.opening import open_pictures
from vitreous.recipes.facts import Choice
from vitreous.supervised import learn_classes
from vitreous.telling import tell_memory, tell_plan
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device
from vitreous.training.pretrain import MaskedAutoencoder, PatchLearner, loss_on, reconstructions
from vitreous.training.provenance import circumstances
from vitreous.training.trainer import Sitting, ValidScore
from vitreous.training.trainer import train as run_training


class Run:
    """A training run on disk.

    Args:
        path: its folder.

    Raises:
        RunError: where that is no run.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._folder = RunFolder.open(Path(path))
        self.path = self._folder.path
        self.report = self._folder.report

    @property
    def evaluation(self) -> dict[str, Any]:
        """The final score, with the keys of ``vitreous evaluate --json``."""
        return read_json(self._folder.evaluation)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str | None:
        """In a notebook: the report, where there is one."""
        if not self.report.exists():
            return None
        page = escape(self.report.read_text(encoding="utf-8"))
        style = "width:100%;height:720px;border:0"
        return f'<iframe srcdoc="{page}" style="{style}" sandbox></iframe>'


def begin(
    default: Path,
    out: str | PathLike[str] | None,
    choice: Choice,
    listing: Listing,
    sitting: Sitting,
    overlay: Overlay | None = None,
) -> Run:
    """A new run, from listed pictures, changed by an overlay or not, to its end.

    Its folder appears with all that is known before the first step.

    Args:
        default: its place, or where that is taken one beside it, if nobody named another.
        out: the place named.
        choice: every setting, with reasons.
        listing: the pictures.
        sitting: this process.
        overlay: what was changed of the listing.

    Raises:
        Interrupted: where the person stops it, with or without a run to go on with.
    """
    try:
        path, files, config, dataset = _prepare(default, out, choice, listing, sitting, overlay)
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped before the run began, so there is nothing to go on with: give the same "
            "command again"
        ) from None
    folder = RunFolder.create(path, files)
    with folder.locked():
        work(folder, config, dataset, sitting)
    return Run(folder.path)


def _prepare(
    default: Path,
    out: str | PathLike[str] | None,
    choice: Choice,
    listing: Listing,
    sitting: Sitting,
    overlay: Overlay | None,
) -> tuple[Path, dict[str, str], RunConfig, Dataset]:
    """A new run's place, first files and settings, and its pictures divided; as `begin`."""
    config, console = choice.config, sitting.console
    dataset = open_pictures(listing, config, console)
    if config.folds:
        # Too few pictures are told before anything is written.
        for repeat in range(config.folds.repeats):
            fold_datasets(dataset, config.folds.count, repeat, config.train.seed)
    names = RunFolder(default)  # wherever the run is going to be
    files = {
        names.choice.name: json.dumps(choice.rows()),
        names.split.name: dataset.split_table(),
        names.data.name: f'{{"fingerprint": "{dataset.fingerprint()}"}}\n',
        names.provenance.name: json.dumps(circumstances(config.train.device)),
    }
    if checkup := _look_first(listing, config, sitting):
        files[names.findings.name] = json.dumps(checkup.to_record())
    path, _ = run_place(default, out)  # only now: another command may have taken one meanwhile
    if overlay:
        console.info(f"overlay: {overlay}")
        own = RunFolder(path).overlay
        files[own.name] = overlay.text
        config = replace(config, data=replace(config.data, overlay=str(own.absolute())))
    files |= {names.config.name: dump_toml(config), **first_files(path)}
    return path, files, config, dataset


def _look_first(listing: Listing, config: RunConfig, sitting: Sitting) -> Checkup | None:
    """What is wrong with labelled pictures, told before it is learned."""
    if not config.data.check or config.pretrain:
        return None
    budget_s, source = config.train.budget_s, Path(config.data.source)
    left_s = None if budget_s is None else sitting.clock.left_s(budget_s, validation_s=0.0)
    console, command = sitting.console, f"vitreous check {quote(str(source))}"
    try:
        with console.stages() as on_progress:
            checkup = look_first(listing, source, left_s, on_progress)
    except StorageError as error:
        # A full folder for temporary files stands in the way of looking, not of training.
        console.warn(f"the pictures weren't looked at for faults: {error}")
        return None
    if checkup is None:
        why = "is left out for far ones" if is_remote(source) else "would take too long"
        console.info(f"looking for faults among the pictures first {why}: {command}")
    elif checkup.counts["error"] or checkup.counts["warning"]:
        console.warn(f"the pictures: {checkup.verdict} Which: {command}")
    return checkup


def work(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    sitting: Sitting,
) -> None:
    """Do what the configuration is for: learn classes, or pretrain.

    Raises:
        Interrupted: where the person stops it, be it behind training.
        TrainingError: where a loss stays no number, or memory is too small.
    """
    do = _pretrain if config.pretrain else learn_classes
    command = f"vitreous {'pretrain' if config.pretrain else 'train'} --resume"
    try:
        do(folder, config, dataset, sitting)
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; what was saved is whole, and the rest can be done later. Go on with: "
            f"{command} {quote(str(folder.path))}"
        ) from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory is too small; what was saved is whole: free some and go on ({command} "
            f"{quote(str(folder.path))}), or begin another run with a smaller --model or "
            "--image-size"
        ) from None


def _pretrain(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    sitting: Sitting,
) -> None:
    """Pretrain, then draw what the model makes of hidden patches."""
    from vitreous.report.reconstructions import draw_reconstructions

    device, console = choose_device(config.train.device), sitting.console
    tell_plan(config, dataset, device, console)
    train_set, valid_set = dataset.sets["train"], dataset.sets["valid"]
    sitting = replace(sitting, clock=replace(sitting.clock, closing_validations=1))

    def validate(model: MaskedAutoencoder) -> ValidScore:
        return ValidScore(loss=loss_on(model, valid_set, config))

    learner = run_training(config, train_set, PatchLearner, validate, folder, sitting)
    rows = reconstructions(learner.averaged(), valid_set, config)
    draw_reconstructions(
        [denormalise(row, config.preprocess).numpy() for row in rows], folder.reconstructions
    )
    best = learner.state.best
    assert best is not None
    tell_memory(folder, device, console)
    score = {"split": "valid", "n": len(valid_set), "loss": best.loss, "step": best.step}
    write_json(folder.evaluation, score)
    console.info(
        f"loss {best.loss:.3f} on {len(valid_set)} pictures held back: 0 tells every hidden patch "
        "exactly, 1 tells no more than its mean"
    )
    console.info(f"pictures: {folder.reconstructions}")
    console.info(f"next: vitreous train FOLDER --init {quote(str(folder.path))}")


def is_finished(folder: RunFolder, config: RunConfig) -> bool:
    """Whether nothing is left to do."""
    shown = folder.reconstructions if config.pretrain else folder.report
    return folder.evaluation.exists() and shown.exists()
