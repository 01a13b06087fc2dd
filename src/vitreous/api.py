"""What a person can ask for, as Python functions: wiring of the parts, nothing else.

Each function here is also a command of the same name (see `cli`), with the same settings; `resume`
is ``vitreous train --resume``, and a `Model` is ``vitreous predict`` without its start each time.
Paths may be text or `Path`.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vitreous.core.config import from_mapping, load_toml, merge
from vitreous.core.console import Console
from vitreous.core.files import first_free
from vitreous.core.launch import run_place
from vitreous.core.run import RunFolder, check_free, check_name
from vitreous.data.faces import write_faces
from vitreous.data.folder import check_beside, check_learnable, list_labelled, list_unlabelled
from vitreous.data.packing import pack
from vitreous.data.remote import name_of, source_path
from vitreous.doctor.visit import check
from vitreous.errors import ConfigError
from vitreous.inquiry import diagnose, summary
from vitreous.job import Run, begin, is_finished, work
from vitreous.labels.audit import Audit
from vitreous.labels.visit import audit_run
from vitreous.lecture.drawing import patches
from vitreous.opening import open_own_pictures, with_cache
from vitreous.processes import one_run
from vitreous.recipes.configure import configure, named_overlay, named_section, named_settings
from vitreous.recipes.facts import Choice
from vitreous.server.visit import serve
from vitreous.serving.loaded import Model
from vitreous.serving.weights import told_by
from vitreous.shipping import export
from vitreous.trained import Source, calibrate, compare, evaluate, explain, predict, tune
from vitreous.training.config import Device, LadderConfig, RunConfig
from vitreous.training.provenance import tell_changes
from vitreous.training.trainer import Clock, Sitting

__all__ = [
    "Model",
    "Run",
    "audit",
    "calibrate",
    "check",
    "compare",
    "demo",
    "diagnose",
    "evaluate",
    "explain",
    "export",
    "pack",
    "patches",
    "predict",
    "pretrain",
    "resume",
    "serve",
    "summary",
    "train",
    "tune",
]

#: Enough to learn the drawn faces; the budget only matters on a slow or busy machine.
DEMO_LENGTH = {"epochs": 12.0, "budget_s": 8 * 60.0}

#: In the place of weights that a file of settings names.
_NO_WEIGHTS = {"init": None, "init_preprocess": [], "init_num_heads": None, "ladder": None}


@one_run
def train(
    source: Source,
    out: Source | None = None,
    *,
    epochs: float | None = None,
    budget_s: float | None = None,
    recipe: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    init: Source | None = None,
    weights: Source | None = None,
    tune: Literal["ladder", "probe", "lora", "full"] | None = None,
    folds: int | None = None,
    repeats: int | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    seed: int | None = None,
    config: Source | None = None,
    settings: Mapping[str, Any] | None = None,
    device: Device | None = None,
    cache: Source | None = None,
    overlay: Source | None = None,
    tensorboard: bool = False,
    console: Console | None = None,
    on_choice: Callable[[Choice], None] | None = None,
    started: float | None = None,
) -> Run:
    """Learn a classifier from pictures, score it and write its report.

    Args:
        source: a folder with one sub-folder a class, with or without train/valid/test around
            them, or a CSV or Parquet table.
        out: the run's folder, which must not exist; by default ``runs/<name of source>``.
        epochs: passes over the training pictures; then no clock changes a number.
        budget_s: instead of epochs: seconds from start to end, everything included.
        recipe: "scratch", "finetune" (with `weights`), or "lecture" for the lecture's model and
            training as they were.
        model: a preset's name; by default chosen by the recipe.
        image_size: height and width in pixels that the model sees.
        init: a pretrained or trained run, a weights file of one, or another library's checkpoint,
            also on a hub (``owner/name[@revision]``), to begin with: its model is used, with its
            weights and a new head, and learns as it would from scratch. "auto" chooses a
            published one.
        weights: the same, tuned by recipe "finetune", rung by rung; "none" for none, also where the
            file of settings names some.
        tune: "ladder" for all rungs, or the one to climb: "probe", "lora" or "full"; by default
            those of the file of settings, or all.
        folds: train so many times more first, each time scored on another part of the pictures held
            out: a score that every picture has a part in. A budget is divided among all of them.
        repeats: do that so often, each time divided otherwise.
        preprocess: of a checkpoint, as for `evaluate`.
        num_heads: likewise.
        seed: of every random draw.
        config: a TOML file of settings, all or some.
        settings: nested settings, stronger than the file's.
        device: "cpu", "cuda" or "mps"; by default a GPU where there is one.
        cache: folder of decoded pictures.
        overlay: CSV of pictures to drop, relabel or group, such as `check` proposes; the run
            keeps a copy.
        tensorboard: write TensorBoard's files too.
        console: where messages go.
        on_choice: is told what was chosen and why, before the work begins.
        started: value of `time.monotonic` when the command began.

    Raises:
        UserError: for settings or pictures that need a change.
        Interrupted: after Ctrl-C, with what the run has done saved, where it had begun.
    """
    clock = Clock(time.monotonic() if started is None else started)
    console = console or Console()
    source = source_path(source)
    default = Path("runs") / name_of(source)
    path, is_begun = run_place(default, out)
    if is_begun:  # and torchrun has started its processes again
        return resume(path, cache=cache, tensorboard=tensorboard, console=console)
    check_name(path)
    check_beside(path, source)
    files = (Path(file) if file else None for file in (cache, overlay))
    changes = named_settings(settings or {}, epochs, budget_s, seed, device, *files)
    if init and weights:
        raise ConfigError("init and weights both say what to begin with: give one")
    if weights == "none":
        changes = merge({**changes, **_NO_WEIGHTS}, {"train": {"lora_rank": 0}})
        weights, recipe = None, recipe or "scratch"
    if weights:
        init, recipe = weights, recipe or "finetune"
    if tune is not None:
        rungs = list(LadderConfig.rungs) if tune == "ladder" else [tune]
        changes = merge(changes, {"ladder": {"rungs": rungs}})
    file = Path(config) if config else None
    if folds is not None:
        changes = merge(changes, {"folds": {"count": folds}})
    if repeats is not None:
        if not named_section(file, changes, "folds"):
            raise ConfigError("repeats is about folds: say how many")
        changes = merge(changes, {"folds": {"repeats": repeats}})
    applied = named_overlay(file, changes)
    listing = list_labelled(source, applied)
    check_learnable(listing, source)
    choice = configure(
        source,
        listing,
        recipe=recipe,
        model=model,
        image_size=image_size,
        init=os.fspath(init) if init else None,
        told=told_by(None, preprocess, num_heads),
        console=console,
        config_file=file,
        changes=changes,
    )
    if on_choice:
        on_choice(choice)
    sitting = Sitting(console, clock, tensorboard)
    return begin(default, out, choice, listing, sitting, applied)


def audit(
    source: Source,
    out: Source | None = None,
    *,
    folds: int | None = None,
    epochs: float | None = None,
    budget_s: float | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Source | None = None,
    console: Console | None = None,
    started: float | None = None,
) -> Audit:
    """Say which labels are probably wrong; neither labels nor pictures are changed.

    Each picture is answered by a model that it was held out of, by cross-validation: a model agrees
    with the wrong labels that it has learned.

    Args:
        source: a run of `train` with folds, whatever it began with; or pictures as for `train`,
            which are trained on from scratch with folds first, into ``runs/<name of source>``.
        out: a new folder, outside the pictures, for the page ``index.html`` and the proposal
            ``overlay.csv``; without it nothing is written but the run.
        folds: of pictures, as for `train`, and so are the others; by default 5.
        epochs: passes over the training pictures in each fold.
        budget_s: instead of epochs: seconds for all folds and the model that is kept.
        settings: nested settings.
        cache: folder of decoded pictures.
        console: where messages go.
        started: value of `time.monotonic` when the command began.

    Raises:
        UserError: for a run without folds, or settings or pictures that need a change.
        Interrupted: after Ctrl-C, with the run saved: go on with it, then audit it.
    """
    path, folder = Path(source), None if out is None else Path(out)
    if (path / "config.toml").exists():
        if any((folds, epochs, budget_s, settings, cache)):
            raise ConfigError(f"{path} is a run, whose folds are settled already: name it alone")
        return audit_run(path, folder)
    if folder:  # told before training
        check_beside(folder, path)
    usual = {"init": None, "folds": {"count": 5}}  # from scratch, without a word on others
    run = train(
        path,
        folds=folds,
        epochs=epochs,
        budget_s=budget_s,
        settings=merge(usual, settings or {}),
        cache=cache,
        console=console,
        started=started,
    )
    return audit_run(run.path, folder)


@one_run
def pretrain(
    source: Source,
    out: Source | None = None,
    *,
    epochs: float | None = None,
    budget_s: float | None = None,
    model: str | None = None,
    image_size: int | None = None,
    seed: int | None = None,
    config: Source | None = None,
    settings: Mapping[str, Any] | None = None,
    device: Device | None = None,
    cache: Source | None = None,
    tensorboard: bool = False,
    console: Console | None = None,
    started: float | None = None,
) -> Run:
    """Learn an encoder from pictures without labels, for `train` to begin with.

    Args:
        source: a folder of pictures, sorted into sub-folders or not, or a CSV or Parquet table.
            Where it has train, valid and test, the pictures of train alone are read.
        out: the run's folder, which must not exist; by default
            ``runs/<name of source>-pretrained``.
        epochs: passes over the pictures; then no clock changes a number.
        budget_s: instead of epochs: seconds from start to end, everything included.
        model: a preset's name; by default the one that `train` would choose.
        image_size: height and width in pixels that the model sees.
        seed: of every random draw.
        config: a TOML file of settings, all or some.
        settings: nested settings, stronger than the file's.
        device: "cpu", "cuda" or "mps"; by default a GPU where there is one.
        cache: folder of decoded pictures.
        tensorboard: write TensorBoard's files too.
        console: where messages go.
        started: value of `time.monotonic` when the command began.

    Raises:
        UserError: for settings or pictures that need a change.
        Interrupted: after Ctrl-C, with what the run has done saved, where it had begun.
    """
    clock = Clock(time.monotonic() if started is None else started)
    console = console or Console()
    source = source_path(source)
    default = Path("runs") / f"{name_of(source)}-pretrained"
    path, is_begun = run_place(default, out)
    if is_begun:
        return resume(path, cache=cache, tensorboard=tensorboard, console=console)
    check_name(path)
    check_beside(path, source, labelled=False)
    files = Path(cache) if cache else None
    changes = named_settings(settings or {}, epochs, budget_s, seed, device, files)
    listing = list_unlabelled(source)
    choice = configure(
        source,
        listing,
        recipe="pretrain",
        model=model,
        image_size=image_size,
        config_file=Path(config) if config else None,
        changes=changes,
    )
    sitting = Sitting(console, clock, tensorboard)
    return begin(default, out, choice, listing, sitting)


@one_run
def resume(
    run: Source,
    *,
    cache: Source | None = None,
    tensorboard: bool = False,
    console: Console | None = None,
) -> Run:
    """Go on with a run of `train` or `pretrain` that was stopped; a finished one is left as it is.

    Args:
        run: the run's folder.
        cache: folder of decoded pictures; by default the one that the run began with.
        tensorboard: write TensorBoard's files too.
        console: where messages go.

    Raises:
        RunError: where the folder is no run or in use, or its pictures have changed.
        StorageError: where it can't be written.
    """
    clock = Clock(time.monotonic())
    console = console or Console()
    folder = RunFolder.open(Path(run))
    run_config = with_cache(from_mapping(RunConfig, load_toml(folder.config)), cache)
    if is_finished(folder, run_config):
        shown = f"Its report: {folder.report}" if folder.report.exists() else ""
        console.info(f"{folder.path} is finished, nothing to do. {shown}".rstrip())
        return Run(folder.path)
    with folder.locked():
        tell_changes(folder, run_config.train.device, console)
        dataset = open_own_pictures(folder, run_config, console)
        work(folder, run_config, dataset, Sitting(console, clock, tensorboard))
    return Run(folder.path)


def demo(
    folder: Source | None = None, *, console: Console | None = None, started: float | None = None
) -> Run:
    """Draw faces, learn them and test on unseen ones.

    Args:
        folder: where the drawn faces and the run go, which must not exist; by default ``demo``
            or, from the second time on, ``demo-2`` and so on.
        console: where messages go.
        started: value of `time.monotonic` when the command began.
    """
    console = console or Console()
    folder = first_free(Path("demo")) if folder is None else Path(folder)
    check_free(folder)
    counts = {"train": 1500, "valid": 150, "test": 400}
    with console.task("drawing faces", 3 * sum(counts.values())) as task:
        for seed, (split, per_class) in enumerate(counts.items()):
            write_faces(
                folder / "faces" / split,
                per_class,
                size=48,
                seed=seed,
                on_done=lambda count: task.update(task.done + count),
            )
    return train(
        folder / "faces",
        folder / "run",
        settings={"train": DEMO_LENGTH, "init": None},
        console=console,
        started=started,
    )
