"""What the formats that are written share: which models they have a place for, and tensors moved.

A format's own modules (`timm_folder`, `transformers_folder`) know its names and arguments; here a
model is held against what they have, and what can be said in two ways is brought into theirs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.positions import sincos2d
from vitreous.model.weights.naming import State


@dataclass(frozen=True)
class Outgoing:
    """A model in another library's words.

    Args:
        tensors: by the library's names.
        settings: content of each JSON file beside them, by its name.
        notes: what the library has no words for, in plain English.
    """

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


#: Of fields of `ModelConfig`, the values that there is a place for.
Values = dict[str, Sequence[Any]]


def _nothing(config: ModelConfig) -> list[str]:
    return []


@dataclass(frozen=True)
class Place:
    """One architecture of another library, and which models it can be.

    Args:
        architecture: its name there.
        values: of each field of `ModelConfig` that it fixes, those that it has.
        problems: what else it has no place for, in the words of `name_field`.
    """

    architecture: str
    values: Values
    problems: Callable[[ModelConfig], list[str]] = _nothing

    def missing(self, config: ModelConfig) -> list[str]:
        """What of a model this architecture has no place for."""
        wrong = [name for name, has in self.values.items() if getattr(config, name) not in has]
        return [*(name_field(config, name) for name in wrong), *self.problems(config)]


#: What no architecture of either library has.
NOWHERE: Values = {
    "stem": ((),),
    "head_dim": (None,),
    "head_hidden": ((),),
    "mlp_output_activation": (False,),
}


def name_field(config: ModelConfig, name: str) -> str:
    """A setting with its value, as a person would change it."""
    return f"model.{name} {getattr(config, name)!r}"


Found = TypeVar("Found", bound=Place)


def find_place(library: str, places: Iterable[Found], config: ModelConfig) -> Found:
    """The first architecture that can be the model.

    Raises:
        WeightsError: listing what none of them has a place for; where there is nothing of that
            kind, what the nearest ones lack, one way or the other.
    """
    plain = config
    if config.attention_dim == config.embed_dim:
        plain = replace(config, head_dim=None)
    lacks = [(place.missing(plain), place) for place in places]
    fewest, nearest = min(lacks, key=lambda pair: len(pair[0]))
    if not fewest:
        return nearest
    if nowhere := [what for what in fewest if all(what in missing for missing, _ in lacks)]:
        raise WeightsError(f"{library} has no place for {', '.join(nowhere)}")
    each = dict.fromkeys(", ".join(missing) for missing, _ in lacks if len(missing) == len(fewest))
    raise WeightsError(
        f"no model of {library} has a place for it all: the nearest lack {', or '.join(each)}"
    )


def with_position_table(config: ModelConfig, state: Mapping[str, Tensor]) -> State:
    """The tensors with a table of positions, whatever the model has; exact.

    Fixed sines are written down, and no positions are zeros.
    """
    state = dict(state)
    if config.pos_embed == "learned":
        return state
    like = state["patch_embed.proj.weight"]
    table = torch.zeros(config.num_patches, config.embed_dim)
    if config.pos_embed == "sincos2d":
        table = sincos2d(config.grid_size, config.embed_dim)
    before = torch.zeros(int(config.class_token), config.embed_dim)
    state["pos_embed"] = torch.cat([before, table])[None].to(like)
    return state


def without_patch_bias(config: ModelConfig, state: Mapping[str, Tensor]) -> State:
    """The bias of the patches moved into their positions, for models that have none."""
    state = dict(state)
    bias = state.pop("patch_embed.proj.bias")
    row, patches = state["pos_embed"].tensor_split([int(config.class_token)], dim=1)
    state["pos_embed"] = torch.cat([row, patches + bias], dim=1)
    return state


def with_second_token(state: Mapping[str, Tensor]) -> State:
    """The one register as DeiT's second token, which has a position: none here, so zeros."""
    state = dict(state)
    state["dist_token"] = state.pop("reg_token")
    row, patches = state["pos_embed"].tensor_split([1], dim=1)
    state["pos_embed"] = torch.cat([row, torch.zeros_like(row), patches], dim=1)
    return state


def split_prefix_head(state: Mapping[str, Tensor]) -> State:
    """A head over class token and one register as two whose answers are averaged."""
    state = dict(state)
    weight, bias = state.pop("head.weight"), state.pop("head.bias")
    for name, half in zip(("head", "head_dist"), weight.chunk(2, dim=1), strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = 2 * half, bias.clone()
    return state


def whole_or_pair(size: tuple[int, int]) -> int | list[int]:
    """One number for a square."""
    return size[0] if size[0] == size[1] else list(size)
