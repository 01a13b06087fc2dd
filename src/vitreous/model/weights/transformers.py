"""transformers' names: ViT, DeiT, DINOv2, DINOv3, CLIP's and SigLIP's vision towers, ViTMAE.

One table of names serves all of them, as saved by any version. The family, which decides what its
library implies (activation, epsilon, pooling), is told from names that only it has; numbers come
from ``config.json`` where it lies beside the weights. Written is a folder of a class that has a
classifier, in `transformers_folder`; its names stand here too.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.model.config import Activation, Pool
from vitreous.model.weights.files import Source
from vitreous.model.weights.naming import State, rename, unwrapped
from vitreous.model.weights.settings import (
    Preprocessing,
    names_in_order,
    positive,
    size_of,
    three_numbers,
)
from vitreous.model.weights.translation import Stated, Translation, Wanted, is_gated, settle

#: What a model with a head puts before its encoder's names.
_BASE = r"(?:(?:vit|deit|dinov2|dinov2_with_registers|model|vision_model)\.)?"
_EMBED = rf"{_BASE}embeddings\."
_LAYER = rf"{_BASE}(?:model\.|encoder\.)?layers?\.(\d+)\."
_RULES = (
    (rf"{_EMBED}(?:cls_token|class_embedding)", "cls_token"),
    (rf"{_EMBED}distillation_token", "dist_token"),
    (rf"{_EMBED}register_tokens", "reg_token"),
    (rf"{_EMBED}(?:position_embeddings|position_embedding\.weight)", "pos_embed"),
    (rf"{_EMBED}patch_embeddings?\.(?:projection\.)?(\w+)", r"patch_embed.proj.\1"),
    (rf"{_BASE}pre_layrnorm\.(\w+)", r"norm_pre.\1"),
    (rf"{_BASE}(?:layernorm|post_layernorm|norm)\.(\w+)", r"norm.\1"),
    (rf"{_LAYER}(?:layernorm_before|layer_norm1|norm1)\.(\w+)", r"blocks.\1.norm1.\2"),
    (rf"{_LAYER}(?:layernorm_after|layer_norm2|norm2)\.(\w+)", r"blocks.\1.norm2.\2"),
    (
        rf"{_LAYER}(?:attention|attention\.attention|self_attn)\."
        r"([qkv])(?:uery|ey|alue|_proj)\.(\w+)",
        r"blocks.\1.attn.\2.\3",
    ),
    (
        rf"{_LAYER}(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.(\w+)",
        r"blocks.\1.attn.proj.\2",
    ),
    (rf"{_LAYER}(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_LAYER}mlp\.(gate|up)_proj\.(\w+)", r"blocks.\1.mlp.\2.\3"),
    (
        rf"{_LAYER}(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.(\w+)",
        r"blocks.\1.mlp.fc2.\2",
    ),
    (rf"{_LAYER}layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (rf"{_BASE}head\.probe", "attn_pool.latent"),
    (rf"{_BASE}head\.attention\.out_proj\.(\w+)", r"attn_pool.proj.\1"),
    (rf"{_BASE}head\.attention\.in_proj_(\w+)", r"attn_pool.qkv.\1"),
    (rf"{_BASE}head\.layernorm\.(\w+)", r"attn_pool.norm.\1"),
    (rf"{_BASE}head\.mlp\.(fc[12])\.(\w+)", r"attn_pool.mlp.\1.\2"),
    (r"(?:cls_)?classifier\.(\w+)", r"head.\1"),
    (r"distillation_classifier\.(\w+)", r"head_dist.\1"),
)
#: Our names as its files have had them since its first versions, behind the name of the encoder;
#: the first that fits is taken. Queries, keys and values are apart.
_OURS = r"blocks\.(\d+)\."
WRITTEN_VIT = (
    (r"(cls_token|mask_token)", r"embeddings.\1"),
    ("dist_token", "embeddings.distillation_token"),
    ("reg_token", "embeddings.register_tokens"),
    ("pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.proj\.(\w+)", r"embeddings.patch_embeddings.projection.\1"),
    (r"norm\.(\w+)", r"layernorm.\1"),
    (rf"{_OURS}norm1\.(\w+)", r"encoder.layer.\1.layernorm_before.\2"),
    (rf"{_OURS}norm2\.(\w+)", r"encoder.layer.\1.layernorm_after.\2"),
    (rf"{_OURS}attn\.q\.(\w+)", r"encoder.layer.\1.attention.attention.query.\2"),
    (rf"{_OURS}attn\.k\.(\w+)", r"encoder.layer.\1.attention.attention.key.\2"),
    (rf"{_OURS}attn\.v\.(\w+)", r"encoder.layer.\1.attention.attention.value.\2"),
    (rf"{_OURS}attn\.proj\.(\w+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (rf"{_OURS}mlp\.fc1\.(\w+)", r"encoder.layer.\1.intermediate.dense.\2"),
    (rf"{_OURS}mlp\.fc2\.(\w+)", r"encoder.layer.\1.output.dense.\2"),
)
WRITTEN_DINOV2 = (
    (rf"{_OURS}(norm[12]|mlp\.fc[12])\.(\w+)", r"encoder.layer.\1.\2.\3"),
    (rf"{_OURS}ls([12])\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
    *WRITTEN_VIT,
)
WRITTEN_GATED = (
    (rf"{_OURS}mlp\.fc1\.(\w+)", r"encoder.layer.\1.mlp.weights_in.\2"),
    (rf"{_OURS}mlp\.fc2\.(\w+)", r"encoder.layer.\1.mlp.weights_out.\2"),
    *WRITTEN_DINOV2,
)
#: CLIP's and SigLIP's.
WRITTEN_TOWER = (
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding.weight"),
    (r"patch_embed\.proj\.(\w+)", r"embeddings.patch_embedding.\1"),
    (r"norm_pre\.(\w+)", r"pre_layrnorm.\1"),
    (r"norm\.(\w+)", r"post_layernorm.\1"),
    (rf"{_OURS}norm([12])\.(\w+)", r"encoder.layers.\1.layer_norm\2.\3"),
    (rf"{_OURS}attn\.([qkv])\.(\w+)", r"encoder.layers.\1.self_attn.\2_proj.\3"),
    (rf"{_OURS}attn\.proj\.(\w+)", r"encoder.layers.\1.self_attn.out_proj.\2"),
    (rf"{_OURS}mlp\.(fc[12])\.(\w+)", r"encoder.layers.\1.mlp.\2.\3"),
)
WRITTEN_HEAD = ((r"head\.(\w+)", r"classifier.\1"),)
WRITTEN_TWO_HEADS = (
    (r"head\.(\w+)", r"cls_classifier.\1"),
    (r"head_dist\.(\w+)", r"distillation_classifier.\1"),
)
_UNUSED = {
    r"text_model\..*|text_projection\..*|visual_projection\..*|logit_(scale|bias)": (
        "the text tower and the projections between it and pictures"
    ),
    r"decoder\..*": "the decoder of pretraining",
    rf"{_EMBED}mask_token": "the mask token of pretraining",
    rf"{_BASE}pooler\..*": "a pooler that classifiers don't use",
    rf"{_EMBED}position_ids": "the numbers of the positions",
}
#: Its words, and ours behind them; of several the first is written.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
#: Pillow's numbers.
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class _Family:
    """What a family has where its settings say nothing.

    Args:
        format: its name, for people.
        classifier_pool: what its library's classifier sees; ``None`` for the usual.
        activation: of the MLPs.
        norm_eps: of every layer norm.
        unused_by_classifier: pattern of our names that its library's classifier leaves out.
    """

    format: str
    classifier_pool: Pool | None = None
    activation: Activation = "gelu"
    norm_eps: float = 1e-12
    unused_by_classifier: str | None = None


_VIT = _Family("transformers ViT, DeiT, ViTMAE")
_DINOV2 = _Family("transformers DINOv2", "cls+mean", norm_eps=1e-6)
_DINOV3 = _Family("transformers DINOv3", norm_eps=1e-5)
_CLIP = _Family("transformers CLIP", "mean", "quick_gelu", 1e-5, r"norm\.\w+")
_SIGLIP = _Family("transformers SigLIP", "mean", "gelu_tanh", 1e-6, r"attn_pool\..*")


def matches(source: Source) -> bool:
    """Whether the tensors have these names."""
    names = unwrapped(source.tensors)
    return any(re.fullmatch(rf"{_EMBED}patch_embeddings?\..*", name) for name in names)


def translate(source: Source, wanted: Wanted) -> Translation:
    """Read a folder of transformers, or its bare tensors.

    Raises:
        WeightsError: where it isn't a plain ViT, or a setting isn't known.
    """
    tensors = unwrapped(source.tensors)
    family = _family(tensors)
    state, notes = rename(tensors, _RULES, _UNUSED, source.path)
    _shape_tokens(state)
    _split_pool_attention(state)
    settings = source.config.get("vision_config", source.config)
    if not isinstance(settings, Mapping):
        raise WeightsError(f"{source.path} has a config.json whose vision_config is no mapping")
    if not settings:
        notes.append(
            f"no config.json beside it: {family.activation}, eps {family.norm_eps} assumed"
        )
    stated = Stated(
        num_heads=_whole(source, settings, "num_attention_heads"),
        image_size=size_of(settings.get("image_size")),
        activation=_activation(source, settings, family, state),
        norm_eps=positive(source.path, settings, "layer_norm_eps", family.norm_eps),
        rope_theta=positive(source.path, settings, "rope_theta", 100.0)
        if family is _DINOV3
        else None,
        notes=notes,
    )
    if "head.weight" in state and "head_dist.weight" not in state:
        stated.pool = family.classifier_pool
        notes += _drop_unused(state, family)
    classes = names_in_order(source.config.get("id2label")) if "head.weight" in state else None
    preprocessing = _preprocessing(source.preprocessor, notes)
    return settle(
        source.path,
        family.format,
        state,
        stated,
        wanted,
        classes=classes,
        preprocessing=preprocessing,
    )


def _family(tensors: Mapping[str, Tensor]) -> _Family:
    def has(end: str) -> bool:
        return any(re.fullmatch(rf"{_BASE}{end}", name) for name in tensors)

    if has(r"embeddings\.class_embedding"):
        return _CLIP
    if has(r"embeddings\.patch_embedding\.weight"):
        return _SIGLIP
    if has(r"embeddings\.patch_embeddings\.weight"):
        return _DINOV3
    return _DINOV2 if has(r"encoder\.layer\.0\.layer_scale1\.lambda1") else _VIT


def _shape_tokens(state: State) -> None:
    """CLIP and SigLIP keep tokens and positions without a batch axis."""
    for name in ("cls_token", "pos_embed"):
        if name in state and state[name].ndim < 3:
            state[name] = state[name].reshape(1, -1, state[name].shape[-1])


def _split_pool_attention(state: State) -> None:
    for kind in ("weight", "bias"):
        if (joined := state.pop(f"attn_pool.qkv.{kind}", None)) is not None:
            width = joined.shape[0] // 3
            state[f"attn_pool.q.{kind}"] = joined[:width].clone()
            state[f"attn_pool.kv.{kind}"] = joined[width:].clone()


def _drop_unused(state: State, family: _Family) -> list[str]:
    if family.unused_by_classifier is None:
        return []
    names = [name for name in state if re.fullmatch(family.unused_by_classifier, name)]
    for name in names:
        del state[name]
    what = f"what the library's classifier doesn't use ({', '.join(names[:2])}, ...)"
    return [f"left out: {what}"] if names else []


def _activation(
    source: Source, settings: Mapping[str, Any], family: _Family, state: State
) -> Activation:
    gated = is_gated(state)
    if gated and family is _DINOV2:
        return "silu"  # whatever its hidden_act says
    name = settings.get("hidden_act")
    if name is None:
        return "silu" if gated else family.activation
    if name not in ACTIVATIONS:
        raise WeightsError(
            f"{source.path} has the activation {str(name)[:40]!r}; known are "
            f"{', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _whole(source: Source, settings: Mapping[str, Any], name: str) -> int | None:
    value = settings.get(name)
    if value is not None and (type(value) is not int or not 0 < value <= 2**16):
        raise WeightsError(f"{source.path} has a config.json with {name} {str(value)[:40]!r}")
    return value


def _preprocessing(settings: Mapping[str, Any], notes: list[str]) -> Preprocessing | None:
    if not settings:
        return None
    size = settings.get("size")
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else None
    covered = size_of(shortest or size)
    crop = size_of(settings.get("crop_size")) if settings.get("do_center_crop") else None
    # A plain number beside a crop was the shorter side for some processors, and both for others.
    if shortest is None and covered and (crop is None or isinstance(size, Mapping)):
        notes.append(
            "its pictures were squeezed into the input's size; here the longer side is cropped"
        )
    code = settings.get("resample")
    if code is not None and code not in INTERPOLATIONS:
        notes.append(f"its resampling (Pillow's number {str(code)[:20]}) isn't known here")
    plain = settings.get("do_normalize", True) and settings.get("do_rescale", True)
    factor = settings.get("rescale_factor", 1 / 255)
    plain = plain and isinstance(factor, int | float) and math.isclose(factor, 1 / 255)
    return Preprocessing(
        image_size=crop or covered,
        resize=covered if crop else None,
        interpolation=INTERPOLATIONS.get(code) if isinstance(code, int) else None,
        mean=three_numbers(settings.get("image_mean")) if plain else None,
        std=three_numbers(settings.get("image_std")) if plain else None,
    )
