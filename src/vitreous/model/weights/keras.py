"""The lecture's model from and to Keras' files: shapes, names and conversion.

`keras_file` reads and writes the files, `keras_structure` finds out which of their layers is which;
here stands what the two libraries mean by the same weights.
"""

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.weights.keras_file import KerasLayer, read_layers, rewrite, write_layers
from vitreous.model.weights.keras_structure import ROLES, KerasStructure, Slot


def load(
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read the lecture's model.

    Args:
        path: of ``.weights.h5``, ``.keras`` or tf.keras 2's ``.h5``.
        image_size: height and width in pixels, where the patches don't make a square.
        names: where the file is ambiguous, which of its paths is which of our layers, such as
            ``{"blocks.0.norm1": "encoder/norm_before"}``, or whole blocks (``"blocks.0"``).

    Returns:
        The configuration that the shapes tell, and a state dict for it.

    Raises:
        WeightsError: where the file isn't such a model; the text names tensors and shapes.
    """
    found = KerasStructure(path, read_layers(path), names or {})
    config = found.config(image_size)
    matched = found.match(_slots(config))
    return config, _from_keras(matched, config)


def save(
    path: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    *,
    like: Path | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Write the lecture's model so that Keras loads it.

    Args:
        path: ends with ``.weights.h5`` or ``.keras``; with `like`, as that file ends.
        config: of the model.
        state: its state dict.
        like: a file of Keras whose names are kept; by default the lecture's own names.
        names: our layer's name to the path in `like`, where that is ambiguous.

    Raises:
        WeightsError: for a model that isn't the lecture's, or one that doesn't fit `like`.
        StorageError: where the file can't be written.
    """
    check_lecture(config)
    tensors = {slot.name: _to_keras(slot, state, config) for slot in _slots(config)}
    if like is not None:
        matched = KerasStructure(like, read_layers(like), names or {}).match(_slots(config))
        pairs = (zip(matched[name].datasets, tensors[name], strict=True) for name in tensors)
        rewrite(path, like, dict(chain.from_iterable(pairs)))
        return
    if not path.name.endswith((".weights.h5", ".keras")):
        raise WeightsError(f"{path} has to end with .weights.h5 or .keras")
    written = []
    for slot in _slots(config):
        place = _lecture_path(slot.name, config)
        datasets = tuple(f"{place}/vars/{number}" for number in range(len(slot.shapes)))
        written.append(KerasLayer(place, place.split("/")[-1], datasets, tensors[slot.name]))
    is_archive = path.name.endswith(".keras")
    write_layers(path, written, _model_config(config) if is_archive else None)


def check_lecture(config: ModelConfig) -> None:
    """See that a model is the lecture's, whatever its sizes.

    Raises:
        WeightsError: naming the first setting that isn't.
    """
    plain = {
        "pos_embed": "learned",
        "class_token": False,
        "num_register_tokens": 0,
        "pool": "flatten",
        "fc_norm": False,
        "stem": (),
        "pre_norm": False,
        "qkv_bias": True,
        "qk_norm": False,
        "layer_scale_init": None,
        "gated_mlp": False,
        "mlp_output_activation": True,
        "final_norm": False,
        "norm_eps": 1e-3,
        "activation": "gelu",
    }
    for name, value in plain.items():
        if getattr(config, name) != value:
            raise WeightsError(
                f"only the lecture's model can be written for Keras, and model.{name} is "
                f"{getattr(config, name)!r} instead of {value!r}: train with --recipe lecture"
            )


def _slots(config: ModelConfig) -> list[Slot]:
    """Every layer of the model in the order of the forward pass, with Keras' shapes."""
    width, heads = config.embed_dim, config.num_heads
    head_dim, hidden = config.attention_dim // heads, config.mlp_hidden_dim
    pixels = config.patch_size[0] * config.patch_size[1] * config.in_channels

    def dense(name: str, inputs: int, outputs: int) -> Slot:
        return Slot(name, "dense", ((inputs, outputs), (outputs,)))

    slots = [
        dense("patch_embed.proj", pixels, width),
        Slot("pos_embed", "table", ((config.num_patches, width),)),
    ]
    for index in range(config.depth):
        block = f"blocks.{index}"
        into = ((width, heads, head_dim), (heads, head_dim))
        slots += [
            Slot(f"{block}.norm1", "norm", ((width,), (width,))),
            *(Slot(f"{block}.attn.{role}", "heads_in", into) for role in ROLES[:3]),
            Slot(f"{block}.attn.output", "heads_out", ((heads, head_dim, width), (width,))),
            Slot(f"{block}.norm2", "norm", ((width,), (width,))),
            dense(f"{block}.mlp.fc1", width, hidden),
            dense(f"{block}.mlp.fc2", hidden, width),
        ]
    inputs = config.num_patches * width
    for index, outputs in enumerate(config.head_hidden):
        slots.append(dense(f"head_mlp.{index}", inputs, outputs))
        inputs = outputs
    return [*slots, dense("head", inputs, config.num_classes)]


def _from_keras(matched: Mapping[str, KerasLayer], config: ModelConfig) -> dict[str, Tensor]:
    """Keras' tensors as a state dict of ours."""
    tensors = {
        name: [torch.from_numpy(tensor) for tensor in layer.tensors]
        for name, layer in matched.items()
    }
    state: dict[str, Tensor] = {}
    for name, (first, *rest) in tensors.items():
        if name == "pos_embed":
            state[name] = first[None]
        elif name == "patch_embed.proj":
            # Rows of the kernel run over a patch's pixels and, fastest, their channels.
            kernel = first.view(*config.patch_size, config.in_channels, -1)
            state |= _pair(name, kernel.permute(3, 2, 0, 1), rest[0])
        elif name.endswith("attn.query"):
            parts = [tensors[name.replace("query", role)] for role in ROLES[:3]]
            kernel = torch.cat([part[0].flatten(1).T for part in parts])
            bias = torch.cat([part[1].flatten() for part in parts])
            state |= _pair(name.replace("query", "qkv"), kernel, bias)
        elif name.endswith("attn.output"):
            state |= _pair(name.replace("output", "proj"), first.flatten(0, 1).T, rest[0])
        elif ".attn." not in name:
            state |= _pair(name, first if first.ndim == 1 else first.T, rest[0])
    return state


def _to_keras(
    slot: Slot, state: Mapping[str, Tensor], config: ModelConfig
) -> tuple[np.ndarray, ...]:
    """The tensors of one layer as Keras has them."""
    name = slot.name
    if name == "pos_embed":
        pair = [state[name][0]]
    elif name == "patch_embed.proj":
        pair = [state[f"{name}.weight"].permute(2, 3, 1, 0), state[f"{name}.bias"]]
    elif slot.kind == "heads_in":
        block, _, role = name.rpartition(".")
        part = ROLES.index(role)
        pair = [state[f"{block}.qkv.{what}"].chunk(3)[part].t() for what in ("weight", "bias")]
    elif slot.kind == "heads_out":
        block = name.removesuffix("output")
        pair = [state[f"{block}proj.weight"].T, state[f"{block}proj.bias"]]
    else:
        weight = state[f"{name}.weight"]
        pair = [weight if weight.ndim == 1 else weight.T, state[f"{name}.bias"]]
    return tuple(
        tensor.detach().cpu().contiguous().view(shape).numpy()
        for tensor, shape in zip(pair, slot.shapes, strict=True)
    )


def _pair(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": weight.contiguous(), f"{name}.bias": bias.contiguous()}


def _lecture_path(name: str, config: ModelConfig) -> str:
    """Where Keras 3 keeps a layer of a class with the lecture's attribute names."""
    if name == "patch_embed.proj":
        return "layers/patch_encoder/linear_projection"
    if name == "pos_embed":
        return "layers/patch_encoder/positional_embedding"
    if name.startswith("blocks."):
        _, index, part = name.split(".", 2)
        encoder = "layers/transformer_encoder" + (f"_{index}" if int(index) else "")
        parts = {"norm1": "layer_norm_1", "norm2": "layer_norm_2"}
        parts |= {"mlp.fc1": "dense_1", "mlp.fc2": "dense_2"}
        role = part.rpartition(".")[2]
        return f"{encoder}/{parts.get(part, f'multi_head_att/{role}_dense')}"
    number = len(config.head_hidden) if name == "head" else int(name.removeprefix("head_mlp."))
    return f"dense_{number + 1}"


def _model_config(config: ModelConfig) -> str:
    """An archive's `config.json`: the classes of docs/lecture/keras_vit.py with our sizes."""
    widths = {config.attention_dim // config.num_heads, config.mlp_hidden_dim, config.embed_dim}
    units = config.head_hidden
    if len(widths) > 1 or len(units) != 2 or units[0] != units[1]:
        raise WeightsError(
            "a .keras file names the lecture's class, whose heads and MLP are as wide as a token, "
            "with two equal dense layers behind them: write .weights.h5 and load them into a class "
            "of your own"
        )
    settings = {
        "name": "vi_t",
        "trainable": True,
        "num_heads": config.num_heads,
        "hidden_size": config.embed_dim,
        "num_patches": config.num_patches,
        "num_layers": config.depth,
        "num_dense_units": units[0],
        "num_classes": config.num_classes,
        "patch_size": config.patch_size[0],
    }
    shape = [None, *config.image_size, config.in_channels]
    return json.dumps(
        {
            "module": None,
            "class_name": "ViT",
            "config": settings,
            "registered_name": "vitreous>ViT",
            "build_config": {"input_shape": shape},
        }
    )
