"""The optimiser, with weight decay only where it belongs."""

import torch
from torch import nn

from vitreous.training.config import TrainConfig

_NOT_MATRICES = ("cls_token", "reg_token", "pos_embed", "attn_pool.latent")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and kernels with decay, everything else without.

    Decay pulls biases, norms, scales, tokens and positions towards a value that has no meaning
    (Loshchilov and Hutter 2019; the split is that of ViT's and DeiT's training code).
    """
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and name not in _NOT_MATRICES
        (decayed if is_matrix else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over all weights of the model."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(
        groups,
        lr=0.0,
        betas=config.betas,
        fused=next(model.parameters()).device.type != "mps",
    )
