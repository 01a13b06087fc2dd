"""From a run's folder to its diagnosis: what is called at the end of a run, and by a person later.

Nothing is trained here (`trials` does), and nothing is written.
"""

import numpy as np
import torch

from vitreous.core.files import read_record
from vitreous.core.run import RunFolder
from vitreous.data.dataset import Dataset
from vitreous.diagnosis.case import Case
from vitreous.diagnosis.causes import Diagnosis
from vitreous.diagnosis.course import Course
from vitreous.diagnosis.gather import Weights, gather
from vitreous.diagnosis.judge import judge
from vitreous.model.vit import ViT
from vitreous.training.checkpoint import newest_average
from vitreous.training.classifier import load_classifier
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device
from vitreous.training.encoder import Encoder
from vitreous.training.learner import first_weights
from vitreous.training.logbook import read_logbook
from vitreous.training.plan import Plan


def diagnose_run(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    split: str,
    encoder: Encoder | None,
    probabilities: np.ndarray | None = None,
    thumbnails: np.ndarray | None = None,
) -> Diagnosis:
    """Say from a run's signals alone what it is stuck on.

    Args:
        run: its folder.
        config: its settings.
        dataset: its pictures.
        split: the one that is scored.
        encoder: what it began with, where that can be had.
        probabilities: (pictures, classes) of the split, where they are known.
        thumbnails: answers of the yardstick that hardly looks, likewise.
    """
    course, weights = read_course(run), read_weights(run, config, encoder)
    signals = gather(config, dataset, split, course, weights, probabilities, thumbnails)
    return judge(Case(signals, config, dataset.classes, str(run.path)))


def newest_part(run: RunFolder) -> RunFolder:
    """Where to look: a run that ended in a fold or a rung has its log and weights in there.

    Returns:
        The run itself where it has some, or no part has a log; else the part with the newest one.
    """
    if run.metrics.exists() or run.best.exists():
        return run
    logs = [path for path in run.path.rglob(run.metrics.name) if path.stat().st_size]
    newest = max(logs, key=lambda path: path.stat().st_mtime_ns, default=run.metrics)
    return RunFolder(newest.parent, run.path)


def read_course(run: RunFolder) -> Course:
    """What a run's log says."""
    history = read_logbook(run.metrics)
    steps = history[-1]["step"] if history else 0
    # A fine-tuned run has the log of the rung that was kept, and no plan.
    if not run.plan.exists():
        return Course.of(history, steps)
    plan = read_record(run.plan, Plan)
    return Course.of(history, plan.total_steps, plan.rate_share)


def read_weights(run: RunFolder, config: RunConfig, encoder: Encoder | None) -> Weights:
    """What a run left, and what it began with.

    Args:
        run: its folder, finished or not.
        config: its settings.
        encoder: what it began with; ``None`` where it began with nothing, or that is gone.
    """
    device = choose_device(config.train.device)
    first = None
    # The rungs of a ladder begin with one another, and low-rank updates have no size at first.
    if not config.ladder and not config.train.lora_rank and (encoder or not config.init):
        first = first_weights(config, encoder).to(device)
    best = load_classifier(run.best).model.to(device) if run.best.exists() else None
    last = _last(run, config)
    last = last.to(device) if last else None
    # A head alone has no last step, and a run may be stopped before its first validation.
    return Weights(first, best or last, last or best)


def _last(run: RunFolder, config: RunConfig) -> ViT | None:
    """The averaged weights at the end, or of the newest checkpoint."""
    if run.last.exists():
        return load_classifier(run.last).model
    tensors = None if config.train.lora_rank else newest_average(run.checkpoints)
    if tensors is None:
        return None
    with torch.device("meta"):
        model = ViT(config.model)
    model.load_state_dict(tensors, assign=True)
    return model.eval()
