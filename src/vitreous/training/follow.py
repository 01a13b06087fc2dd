"""How a training begun by one process becomes that of several, and what the others do.

The first process makes a learner as it would alone. `share` sends the others what it was made of,
its pictures and its state; from then on they do in `follow` what it says.
"""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitreous.core.config import from_mapping, to_mapping
from vitreous.data.loader import PictureSet, PixelRows
from vitreous.data.stream import StreamedPixels
from vitreous.errors import DataError
from vitreous.training.checkpoint import restore, state_tensors
from vitreous.training.config import RunConfig
from vitreous.training.device import free_memory, in_same_order
from vitreous.training.distributed import Joined, Team
from vitreous.training.learner import ClassLearner, Learner
from vitreous.training.plan import Plan
from vitreous.training.pretrain import PatchLearner


def share(learner: Learner[Any]) -> None:
    """Have all processes go on from a learner's state; they take part in its steps from here on."""
    team = learner.team
    if team.size == 1:
        return
    classes = learner.classes if isinstance(learner, ClassLearner) else None
    team.tell("begin", config=to_mapping(learner.config), classes=classes)
    _give_pictures(team, learner.pictures)
    tensors = dict(state_tensors(learner.state))
    shapes = {name: [str(value.dtype), list(value.shape)] for name, value in tensors.items()}
    team.tell("state", step=learner.state.step, shapes=shapes)
    for value in tensors.values():
        team.give(value)
    learner.spread()


def follow(team: Joined) -> dict[str, Any]:
    """Do what the leader says, until it says that this is the end.

    Returns:
        What it says at the end.
    """
    what, more = team.hear()
    while what != "end":
        assert what == "begin"
        config = from_mapping(RunConfig, more["config"])
        with in_same_order(config.train):
            what, more = _take_part(team, config, more["classes"])
        free_memory()
    return more


def _take_part(
    team: Joined, config: RunConfig, classes: list[str] | None
) -> tuple[str, dict[str, Any]]:
    """Train along with one learner; what the leader says that isn't for this one."""
    learner = _begin(team, config, classes)
    while True:
        what, more = team.hear()
        if what == "learn":
            learner.learn(Plan.from_json(more["plan"]))
        elif what == "tensors":
            learner.tensors()
        elif what == "averaged":
            learner.averaged()
        else:
            return what, more


def _begin(team: Joined, config: RunConfig, classes: list[str] | None) -> Learner[Any]:
    pictures = _take_pictures(team, config)
    learner: Learner[Any]
    if classes is None:
        learner = PatchLearner(config, pictures)
    else:
        learner = ClassLearner(config, pictures, tuple(classes))
    _, more = team.hear()
    tensors = {name: _take(team, *kind) for name, kind in more["shapes"].items()}
    restore(learner.state, tensors, Path("the first process' state"))
    learner.state.step = more["step"]
    learner.spread()
    return learner


def _give_pictures(team: Team, pictures: PictureSet) -> None:
    """Say where they lie; those that lie in no file are sent."""
    pixels, rows = pictures.pixels, torch.from_numpy(np.asarray(pictures.rows))
    tensors = {"rows": rows, "labels": pictures.labels, "votes": pictures.votes}
    paths = place = None
    if isinstance(pixels, StreamedPixels):
        paths = [str(path) for path in pixels.paths]
        pixels, places = pixels.kept
        tensors["places"] = torch.from_numpy(places)
    if isinstance(pixels, np.memmap) and isinstance(pixels.base, mmap.mmap):
        place = [str(Path(str(pixels.filename)).absolute()), pixels.offset]
    else:
        tensors["pixels"] = torch.from_numpy(np.ascontiguousarray(pixels))
    given = {name: value for name, value in tensors.items() if value is not None}
    shapes = {name: [str(value.dtype), list(value.shape)] for name, value in given.items()}
    team.tell("pictures", paths=paths, place=place, shape=list(pixels.shape), shapes=shapes)
    for value in given.values():
        team.give(value)


def _take_pictures(team: Joined, config: RunConfig) -> PictureSet:
    _, told = team.hear()
    taken = {name: _take(team, *kind) for name, kind in told["shapes"].items()}
    pixels: PixelRows
    if told["place"] is None:
        pixels = taken["pixels"].numpy()
    else:
        path, offset = told["place"]
        try:
            pixels = np.memmap(path, np.uint8, "r", offset, tuple(told["shape"]))
        except (OSError, ValueError) as error:
            raise DataError(
                f"can't read the decoded pictures of the first process, {path}: {error}; name a "
                "folder that all machines share with --cache"
            ) from None
    rows, shuffle = taken["rows"].numpy(), None
    if told["paths"] is not None:
        paths, buffer = [Path(path) for path in told["paths"]], config.data.shuffle_buffer
        streamed = StreamedPixels(paths, config.preprocess, buffer)
        streamed.keep_these(pixels, taken["places"].numpy())
        pixels, shuffle = streamed, streamed.shuffle_of(rows)
    votes = taken.get("votes")
    return PictureSet(pixels, rows, taken["labels"], (), votes=votes, shuffle=shuffle)


def _take(team: Team, dtype: str, shape: list[int]) -> Tensor:
    """A tensor that the leader gives."""
    return team.give(torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch."))))
