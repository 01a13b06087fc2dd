"""The whole state of a run in one file, and the newest one back.

Random numbers and the place in the data are functions of the step (see `core.rng` and
`data.loader`), so weights, their average, the optimiser's moments and a few numbers are all there
is. One file, renamed into place, is either there or not; a checksum tells whether it still is what
was written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor

from vitreous.core.files import read_metadata, read_tensors, storage_errors, write_tensors
from vitreous.errors import RunError
from vitreous.training.ema import Ema, Model
from vitreous.training.plan import Best
from vitreous.training.sharding import divided_like, whole

#: How many of the newest ones are kept.
KEPT = 2


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
        losses: of the steps since the last line in the log, scalars on the device; those of steps
            that were skipped are no numbers.
        skipped_in_a_row: steps up to the last line in the log.
        returns: how often the run had gone back.
    """

    model: Model
    ema: Ema[Model]
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    best: Best | None = None
    metrics_bytes: int = 0
    elapsed_s: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    skipped_in_a_row: int = 0
    returns: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A state as it was at one moment, while training goes on.

    Args:
        step: behind which.
        tensors, metadata: of its file.
    """

    step: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def snapshot(state: TrainState[Model], tensors: Mapping[str, Tensor]) -> Snapshot:
    """Copy a state to where nothing changes it.

    Args:
        state: of the training.
        tensors: its `state_tensors`.
    """
    tensors = dict(tensors)
    if state.losses:
        tensors["run.losses"] = torch.stack(state.losses)
    metadata: dict[str, Any] = {
        "step": state.step,
        "best": asdict(state.best) if state.best else None,
        "metrics_bytes": state.metrics_bytes,
        "elapsed_s": state.elapsed_s,
        "skipped_in_a_row": state.skipped_in_a_row,
        "returns": state.returns,
    }
    copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
    return Snapshot(state.step, copies, metadata)


def write_checkpoint(folder: Path, taken: Snapshot, milestone_every: int = 1) -> None:
    """Write ``step-<number>.safetensors``, and remove what is not needed any more.

    Kept are the newest `KEPT`, and the newest milestone before them, so that wherever the run goes
    on from, what it may have to go back to is there.

    Args:
        folder: of the checkpoints.
        taken: the state.
        milestone_every: steps between those that a run may go back to.
    """
    path = folder / f"step-{taken.step:09}.safetensors"
    write_tensors(path, taken.tensors, taken.metadata, checksum=True)
    paths = _all_checkpoints(folder)
    milestones = [old for old in paths[:-KEPT] if _is_milestone(old, milestone_every)]
    with storage_errors(folder):
        for old in paths[:-KEPT]:
            if old not in milestones[-1:]:
                old.unlink(missing_ok=True)


def load_newest_checkpoint(
    folder: Path, state: TrainState[Model], returns: Sequence[int] = ()
) -> bool:
    """Fill `state` from the newest whole checkpoint.

    Args:
        folder: of the checkpoints.
        state: as it is at a run's beginning.
        returns: the steps that the run went back to, whenever it did; checkpoints that lie on the
            ways that it left are removed.

    Returns:
        False where there is none yet.

    Raises:
        RunError: where there are some but none is whole, or it doesn't fit this model.
        StorageError: where one can't be removed.
    """
    problem: RunError | None = None
    for path in reversed(_all_checkpoints(folder)):
        try:
            tensors, metadata = read_tensors(path)
        except RunError as error:
            problem = problem or error
            continue
        if any(metadata["step"] > step for step in returns[metadata["returns"] :]):
            with storage_errors(path):
                path.unlink()
            continue
        restore(state, tensors, path)
        state.step = metadata["step"]
        state.best = Best(**metadata["best"]) if metadata["best"] else None
        state.metrics_bytes = metadata["metrics_bytes"]
        state.elapsed_s = metadata["elapsed_s"]
        state.skipped_in_a_row = metadata["skipped_in_a_row"]
        state.returns = metadata["returns"]
        return True
    if problem:
        raise problem
    return False


def newest_milestone(folder: Path, step: int, milestone_every: int) -> int | None:
    """The last step that a run may go back to from `step`; ``None`` where no file of one is whole.

    Args:
        folder: of the checkpoints.
        step: where the run is.
        milestone_every: steps between those that it may go back to.
    """
    for path in reversed(_all_checkpoints(folder)):
        if _step_of(path) > step or not _is_milestone(path, milestone_every):
            continue
        try:
            read_tensors(path)
        except RunError:
            continue
        return _step_of(path)
    return None


def _is_milestone(path: Path, every: int) -> bool:
    """Whether a run may go back to it: nothing was wrong there."""
    if _step_of(path) % every:
        return False
    try:
        return not read_metadata(path)["skipped_in_a_row"]
    except RunError:
        return False


def newest_average(folder: Path) -> dict[str, Tensor] | None:
    """The averaged weights of the newest whole checkpoint; ``None`` where no step was saved."""
    for path in reversed(_all_checkpoints(folder)):
        if not _step_of(path):
            continue
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


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


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
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}, "run": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    try:
        state.model.load_state_dict(parts["model"])
        state.ema.model.load_state_dict(parts["ema"])
    except RuntimeError as error:
        raise RunError(f"{path} does not fit this run's model: {error}") from None
    restore_moments(state, parts["optimizer"])
    device = next(state.model.parameters()).device
    state.losses = list(parts["run"].get("losses", torch.empty(0)).to(device, copy=True))


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
        own = value.clone() if on_host else divided_like(value, parameter)
        optimizer_of[parameter].state[parameter][key] = own
