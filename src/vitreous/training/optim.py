"""The optimiser, with weight decay only where it belongs."""

import math

import torch
from torch import nn

from vitreous.training.config import TrainConfig

_NOT_MATRICES = ("cls_token", "reg_token", "mask_token", "pos_embed", "latent")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and kernels with decay, everything else without.

    Decay pulls biases, norms, scales, tokens and positions towards a value that has no meaning
    (Loshchilov and Hutter 2019; the split is that of ViT's and DeiT's training code).
    """
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and name.split(".")[-1] not in _NOT_MATRICES
        (decayed if is_matrix else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


class KerasAdam(torch.optim.AdamW):
    """Adam as Keras computes it: epsilon stands outside the bias correction.

    Keras divides by sqrt(v) + eps and corrects the bias in the rate (Kingma and Ba 2015, the end of
    section 2); PyTorch divides by the corrected sqrt(v) plus eps. They are the same where
    PyTorch's epsilon is eps / sqrt(1 - beta2^step).
    """

    EPSILON = 1e-7

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step; there is no closure to evaluate."""
        for group in self.param_groups:
            # All parameters of a group have taken the same number of steps.
            state = self.state.get(group["params"][0], {}) if group["params"] else {}
            done = int(state.get("step", 0))
            group["eps"] = self.EPSILON / math.sqrt(1.0 - group["betas"][1] ** (done + 1))
        super().step(closure)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimiser over all weights of the model."""
    optimizer = KerasAdam if config.optimizer == "keras_adam" else torch.optim.AdamW
    return optimizer(
        parameter_groups(model, config.weight_decay),
        lr=0.0,
        betas=config.betas,
        fused=next(model.parameters()).device.type != "mps",
    )
