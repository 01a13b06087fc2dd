"""Google's names: the ``.npz`` files of the ViT papers and AugReg, and those of big_vision.

The layout is Flax's: kernels have their inputs first, attention has an axis for heads, and
big_vision may stack all blocks into one array. Flax computes GELU by its tanh form.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitreous.model.weights.files import Source
from vitreous.model.weights.naming import head_behind_tanh, rename
from vitreous.model.weights.translation import Stated, Translation, Wanted, settle

#: Of the image tower of two.
_TOWER = "params/img/"
_PREFIXES = ("opt/target/", _TOWER, "params/", "")
_ATTENTION = r"MultiHeadDotProductAttention_[01]/"
_RULES = (
    (r"embedding/(\w+)", r"patch_embed.proj.\1"),
    ("cls", "cls_token"),
    (r"(?:Transformer/posembed_input/)?pos_embedding", "pos_embed"),
    (r"Transformer/encoder_norm/(\w+)", r"norm.\1"),
    (r"head/(\w+)", r"head.\1"),
    (r"Transformer/encoderblock_(\d+)/LayerNorm_0/(\w+)", r"blocks.\1.norm1.\2"),
    (r"Transformer/encoderblock_(\d+)/LayerNorm_[12]/(\w+)", r"blocks.\1.norm2.\2"),
    (rf"Transformer/encoderblock_(\d+)/{_ATTENTION}([qkv])\w+/(\w+)", r"blocks.\1.attn.\2.\3"),
    (rf"Transformer/encoderblock_(\d+)/{_ATTENTION}out/(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"Transformer/encoderblock_(\d+)/MlpBlock_[03]/Dense_0/(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"Transformer/encoderblock_(\d+)/MlpBlock_[03]/Dense_1/(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"MAPHead_0/probe", "attn_pool.latent"),
    (r"MAPHead_0/LayerNorm_0/(\w+)", r"attn_pool.norm.\1"),
    (rf"MAPHead_0/{_ATTENTION}out/(\w+)", r"attn_pool.proj.\1"),
    (rf"MAPHead_0/{_ATTENTION}([qkv])\w+/(\w+)", r"attn_pool.\1.\2"),
    (r"MAPHead_0/MlpBlock_0/Dense_0/(\w+)", r"attn_pool.mlp.fc1.\1"),
    (r"MAPHead_0/MlpBlock_0/Dense_1/(\w+)", r"attn_pool.mlp.fc2.\1"),
)
_UNUSED = {r"opt/(?!target/).*|(?:params/)?(?:txt/.*|t|b)": "the text tower and its temperature"}
_KINDS = {"kernel": "weight", "scale": "weight"}


def matches(source: Source) -> bool:
    """Whether the arrays have these names."""
    return _prefix(source) is not None


def _prefix(source: Source) -> str | None:
    names = source.tensors
    return next((p for p in _PREFIXES if f"{p}embedding/kernel" in names), None)


def translate(source: Source, wanted: Wanted) -> Translation:
    """Read the arrays.

    Raises:
        WeightsError: where they aren't those of a plain ViT.
    """
    prefix = _prefix(source) or ""
    tensors = _unstacked(
        {name.removeprefix(prefix): tensor for name, tensor in source.tensors.items()}
    )
    unused = _UNUSED | head_behind_tanh(tensors, "pre_logits/.*", "head/.*")
    if prefix == _TOWER:
        unused |= {"head/.*": "the projection to where pictures and texts are compared"}
    renamed, notes = rename(tensors, _RULES, unused, source.path)
    state = {_ours(name): _turned(name, tensor) for name, tensor in renamed.items()}
    for kind in ("weight", "bias"):
        names = [f"attn_pool.{part}.{kind}" for part in "kv"]
        if all(name in state for name in names):
            state[f"attn_pool.kv.{kind}"] = torch.cat([state.pop(name) for name in names])
    notes.append("GELU in its tanh form, as Flax computes it")
    stated = Stated(num_heads=_heads(renamed), activation="gelu_tanh", notes=notes)
    return settle(source.path, "Google (AugReg, big_vision)", state, stated, wanted)


def _unstacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """big_vision's scanned models hold each tensor of all blocks in one."""
    apart = {}
    for name, tensor in tensors.items():
        if "Transformer/encoderblock/" in name and tensor.ndim:
            for index, part in enumerate(tensor):
                apart[name.replace("encoderblock/", f"encoderblock_{index}/")] = part
        else:
            apart[name] = tensor
    return apart


def _heads(tensors: Mapping[str, Tensor]) -> int | None:
    """Attention has an axis for its heads."""
    query = tensors.get("blocks.0.attn.q.kernel")
    return None if query is None or query.ndim != 3 else query.shape[1]


def _ours(name: str) -> str:
    stem, dot, kind = name.rpartition(".")
    return f"{stem}{dot}{_KINDS.get(kind, kind)}"


def _turned(name: str, tensor: Tensor) -> Tensor:
    """A kernel with its outputs first, heads side by side."""
    layer, _, kind = name.rpartition(".")
    if layer.endswith(("attn.q", "attn.k", "attn.v", "attn_pool.q", "attn_pool.k", "attn_pool.v")):
        return tensor.flatten(1).T.contiguous() if kind == "kernel" else tensor.flatten()
    if kind != "kernel":
        return tensor
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.flatten(0, -2).T.contiguous()
