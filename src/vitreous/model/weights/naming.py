"""Tensors of a file under our names, checked number by number; lists of names for messages."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path

import torch
from torch import Tensor

from vitreous.errors import WeightsError

State = dict[str, Tensor]
#: Patterns of whole names and what to put for them.
Rules = Sequence[tuple[str, str]]
#: Of DistributedDataParallel, torch.compile, Lightning, and self-distillation.
_WRAPPERS = r"((module|_orig_mod|model|teacher)\.)*"
_LISTED = 8


def rename(
    tensors: Mapping[str, Tensor],
    rules: Rules,
    unused: Mapping[str, str],
    where: Path,
) -> tuple[State, list[str]]:
    """Give tensors our names.

    Args:
        tensors: by their names in the file.
        rules: patterns of whole names and what to put for them; the first that fits is taken.
        unused: patterns of whole names that a classifier of pictures has no use for, and what
            those are.
        where: the file, for messages.

    Returns:
        The tensors in float32, and notes of what was left out.

    Raises:
        WeightsError: where a number isn't finite, or two tensors get one name.
    """
    state: State = {}
    left_out: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if what := next((w for p, w in unused.items() if re.fullmatch(p, name)), None):
            left_out[what] += 1
            continue
        ours = new_name(name, rules)
        if ours in state:
            raise WeightsError(f"{where} has two tensors for {ours}, the second of them {name}")
        state[ours] = as_numbers(where, name, tensor)
    return state, [
        f"left out: {what} ({count} tensor{'s' * (count > 1)})" for what, count in left_out.items()
    ]


def new_name(name: str, rules: Rules) -> str:
    r"""What the first rule that fits makes of a name; the same where none does.

    Example:
        >>> new_name("blocks.7.ls1.gamma", [(r"(blocks\.\d+)\.ls([12])\.gamma", r"\1.gamma_\2")])
        'blocks.7.gamma_1'
    """
    matches = ((re.fullmatch(pattern, name), new) for pattern, new in rules)
    return next((match.expand(new) for match, new in matches if match), name)


def as_numbers(where: Path, name: str, tensor: Tensor) -> Tensor:
    """A copy in float32, integers as they are.

    Raises:
        WeightsError: for NaN and infinity, naming the tensor.
    """
    if tensor.is_complex():
        raise WeightsError(f"{where} has complex numbers in {name}")
    if not tensor.is_floating_point():
        return tensor.clone()
    tensor = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    check_finite(where, name, tensor)
    return tensor


def check_finite(where: Path, name: str, tensor: Tensor) -> None:
    """See that every number of a tensor is one, as float32.

    Raises:
        WeightsError: for NaN and infinity, naming the tensor.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return
    tensor = tensor.to(torch.float32)
    # Smallest and largest are NaN where any number is, and take a tenth of the time of asking each.
    if all(math.isfinite(extreme) for extreme in torch.aminmax(tensor)):
        return
    bad = int((~tensor.isfinite()).sum())
    raise WeightsError(
        f"{where} has {bad:,} numbers in {name} that are NaN or infinite: it was saved from a "
        "run that failed, or is damaged"
    )


def unwrapped(tensors: Mapping[str, Tensor]) -> State:
    """Names without what wrappers, in whatever order, put before all of them."""
    wrappers = re.match(_WRAPPERS, commonprefix([*tensors]))  # noqa: RUF071 - no paths, but names
    length = wrappers.end() if wrappers else 0
    return {name[length:]: tensor for name, tensor in tensors.items()}


def head_behind_tanh(names: Iterable[str], layer: str, head: str) -> dict[str, str]:
    """An addition to `unused` where a tanh layer, which this model hasn't, stands before the head.

    Args:
        names: of all tensors.
        layer: pattern of that layer's names.
        head: pattern of the head's.
    """
    has_layer = any(re.fullmatch(layer, name) for name in names)
    return {f"{layer}|{head}": "a head behind a tanh layer"} if has_layer else {}


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are beside them."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"
