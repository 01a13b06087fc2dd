"""Whatever can stand where a trained model is asked for, ready to answer."""

from os import PathLike
from pathlib import Path

from vitreous.core.console import Console
from vitreous.serving.guard import open_guard
from vitreous.serving.predictor import Predictor, open_predictor
from vitreous.serving.sealed import open_sealed_predictor
from vitreous.serving.tune import choose_engine
from vitreous.serving.weights import Told, find_classifier, is_sealed
from vitreous.serving.wish import Wish


def open_model(
    where: str | PathLike[str], told: Told, wish: Wish, console: Console
) -> tuple[Path, Predictor]:
    """A run, a weights file, a checkpoint or a sealed file, ready to answer.

    Args:
        where: a path or a hub's id.
        told: what is known of a checkpoint beside its file.
        wish: what is asked of its answers.
        console: where messages go.

    Returns:
        The file that it was found in, and what answers.

    Raises:
        ConfigError: for a runtime that isn't installed, a precision that it doesn't have, a
            coverage that can't be, or what it isn't calibrated for.
        RunError: where there is no trained model.
        WeightsError: for a file that can't be read, or says too little.
    """
    path = find_classifier(where, told, console, sealed=True)
    if is_sealed(path):
        return path, open_sealed_predictor(path, where, wish, console)
    guard = open_guard(path, where, wish, console)
    engine = choose_engine(path, wish.runtime, wish.precision, wish.device, console)
    return path, open_predictor(path, engine, console, guard)
