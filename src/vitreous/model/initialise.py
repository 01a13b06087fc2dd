"""First weights: as the paper's own code draws them, with silent blocks, or as tf.keras 2 did.

`vit` calls one of these once, when a model is made.
"""

import math

import torch
from torch import Tensor, nn

#: Layers that are several matrices in one.
_STACKED = {"qkv": 3, "kv": 2}


def xavier(model: nn.Module) -> None:
    """Dense layers Xavier-uniform with zero biases, the classifier zero.

    A fixed standard deviation of 0.02, usual for wide models, leaves the branches of a narrow one
    so faint that it starts far slower (docs/experiments/LOG.md). Convolutions keep PyTorch's
    fan-in initialisation, which for the patch projection is much the same.

    Reference:
        Glorot and Bengio 2010, equation 16; the zero classifier is that of google-research's
        vision_transformer.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan_out, fan_in = module.weight.shape
            fan_out //= _STACKED.get(name.rpartition(".")[2], 1)
            _uniform(module.weight, fan_in, fan_out)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if name == "head" and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
    _draw_tokens(model)
    if isinstance(positions := getattr(model, "pos_embed", None), Tensor):
        nn.init.trunc_normal_(positions, std=0.02)


def identity(model: nn.Module) -> None:
    """As `xavier`, but the last layer of every branch is zero: a fresh block hands on its tokens.

    What learns first is the way from the stem to the classifier; each block joins in when that
    helps. Twelve random branches instead stand between the two for the first epochs
    (docs/experiments/LOG.md).

    Reference:
        Zhang et al. 2019, "Fixup Initialization", section 3.
    """
    xavier(model)
    for name, module in model.named_modules():
        is_last = name.startswith("blocks.") and name.endswith(("attn.proj", "mlp.fc2"))
        if is_last and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)


def keras2(model: nn.Module, num_heads: int) -> None:
    """As tf.keras 2 draws its layers: the lecture's start, with its faint attention.

    It counts the fans of a query, key or value kernel of shape (embed, heads, head_dim) as for a
    convolution, with the first axis as the receptive field: the bound is about sqrt(embed) times
    smaller than the matrix product asks for, so attention begins almost uniform. Keras 3 has mended
    that and draws them Xavier-uniform. Embedding tables are uniform within 0.05, biases zero, and
    the classifier is drawn like any dense layer.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight.flatten(1)
            fan_out, fan_in = weight.shape
            if name.endswith("qkv"):
                head_dim = fan_out // 3 // num_heads
                fan_in, fan_out = fan_in * num_heads, fan_in * head_dim
            elif name.endswith("attn.proj"):
                fan_out *= num_heads
            _uniform(module.weight, fan_in, fan_out)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    _draw_tokens(model)
    if isinstance(positions := getattr(model, "pos_embed", None), Tensor):
        nn.init.uniform_(positions, -0.05, 0.05)


def _uniform(weight: Tensor, fan_in: int, fan_out: int) -> None:
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    nn.init.uniform_(weight, -bound, bound)


def _draw_tokens(model: nn.Module) -> None:
    for name in ("cls_token", "reg_token"):
        if isinstance(token := getattr(model, name, None), torch.nn.Parameter):
            nn.init.trunc_normal_(token, std=1e-6)
