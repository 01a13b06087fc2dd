"""The whole state of a run in one file, and the newest one back.

Random numbers and the place in the data are functions of the step (see `core.rng` and
`data.loader`), so weights, their average, the optimiser's moments and a few numbers are all there
is. One file, renamed into place, is either there or not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor

from vitreous.core.files import read_tensors, write_tensors
from vitreous.errors import RunError
from vitreous.training.ema import Ema, Model
from vitreous.training.sharding import divided_like, whole

KEPT = 2


@dataclass(frozen=True)
class Best:
    """The validation that decided which weights are the best so far.

    Args:
        step: behind which it was made.
        balanced_accuracy: ``None`` where there are no classes.
        loss: on the validation pictures.
    """

    step: int
    balanced_accuracy: float | None
    loss: float

    def beats(self, other: "Best | None") -> bool:
        """Higher balanced accuracy wins, then lower loss; the earlier keeps a tie."""
        if other is None:
            return True
        mine, theirs = ((best.balanced_accuracy or 0.0, -best.loss) for best in (self, other))
        return mine > theirs


@dataclass
class TrainState(Generic[Model]):
    """Everything that changes during training.

    Args:
        model: being trained.
        ema: its moving average.
        optimizers: with their moments, each over weights of its own.
        step: training steps done.
        best: the best validation so far.
        metrics_bytes: length of `metrics.jsonl` that belongs to this state.
        elapsed_s: seconds worked so far, over all sittings.
        losses: of the steps since the last line in the log, scalars on the device.
    """

    model: Model
    ema: Ema[Model]
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    best: Best | None = None
    metrics_bytes: int = 0
    elapsed_s: float = 0.0
    losses: list[Tensor] = field(default_factory=list)


def save_checkpoint(
    folder: Path, state: TrainState, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write the state as ``step-<number>.safetensors`` and keep the newest `KEPT`.

    Args:
        folder: of checkpoints.
        state: to be written.
        tensors: of `state_tensors`, where they have been put together already.
    """
    tensors = dict(state_tensors(state)) if tensors is None else tensors
    metadata: dict[str, Any] = {
        "step": state.step,
        "best": asdict(state.best) if state.best else None,
        "metrics_bytes": state.metrics_bytes,
        "elapsed_s": state.elapsed_s,
        "losses": [loss.item() for loss in state.losses],
    }
    write_tensors(folder / f"step-{state.step:09}.safetensors", tensors, metadata)
    for old in _all_checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)


def load_newest_checkpoint(folder: Path, state: TrainState) -> bool:
    """Fill `state` from the newest whole checkpoint.

    Returns:
        False where there is none yet.

    Raises:
        RunError: where there are some but none fits this model.
    """
    problem: RunError | None = None
    for path in reversed(_all_checkpoints(folder)):
        try:
            tensors, metadata = read_tensors(path)
        except RunError as error:
            problem = error
            continue
        restore(state, tensors, path)
        state.step = metadata["step"]
        state.best = Best(**metadata["best"]) if metadata["best"] else None
        state.metrics_bytes = metadata["metrics_bytes"]
        state.elapsed_s = metadata["elapsed_s"]
        state.losses = [torch.tensor(loss) for loss in metadata["losses"]]
        return True
    if problem:
        raise problem
    return False


def newest_average(folder: Path) -> dict[str, Tensor] | None:
    """The averaged weights of the newest whole checkpoint; ``None`` where there is none."""
    for path in reversed(_all_checkpoints(folder)):
        try:
            tensors, _ = read_tensors(path)
        except RunError:
            continue
        return {
            name.removeprefix("ema."): value
            for name, value in tensors.items()
            if name.startswith("ema.")
        }
    return None


def has_checkpoint(folder: Path) -> bool:
    """Whether there is one, whole or damaged; half-written files of a killed run are none."""
    return bool(_all_checkpoints(folder))


def _all_checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))


def state_tensors(state: TrainState) -> Iterator[tuple[str, Tensor]]:
    """All weights, averages and moments by name; whole, whether processes have divided them or not.

    Where they have, all of them have to ask for it.
    """
    for part, model in (("model", state.model), ("ema", state.ema.model)):
        for name, value in model.state_dict().items():
            yield f"{part}.{name}", whole(value)
    for name, parameter in state.model.named_parameters():
        for optimizer in state.optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                yield f"optimizer.{name}.{key}", whole(value)


def restore(state: TrainState, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a state what `state_tensors` told of another; the path is named where it doesn't fit.

    Raises:
        RunError: where it is of another model.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    try:
        state.model.load_state_dict(parts["model"])
        state.ema.model.load_state_dict(parts["ema"])
    except RuntimeError as error:
        raise RunError(f"{path} does not fit this run's model: {error}") from None
    restore_moments(state, parts["optimizer"])


def restore_moments(state: TrainState, moments: Mapping[str, Tensor]) -> None:
    """The optimisers' part of `restore`: tensors by the names of weight and moment."""
    by_name = dict(state.model.named_parameters())
    optimizer_of = {
        parameter: optimizer
        for optimizer in state.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, value in moments.items():
        parameter_name, _, key = name.rpartition(".")
        parameter = by_name[parameter_name]
        # AdamW keeps its step count on the CPU unless fused on a GPU; it moves it itself.
        on_host = key == "step" and parameter.device.type == "mps"
        own = value if on_host else divided_like(value, parameter)
        optimizer_of[parameter].state[parameter][key] = own
