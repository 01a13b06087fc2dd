"""The optimiser, with weight decay only where it belongs."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from vitreous.training.config import TrainConfig

_NOT_MATRICES = ("cls_token", "reg_token", "mask_token", "pos_embed", "latent")


def parameter_groups(
    model: nn.Module, weight_decay: float, elsewhere: Sequence[nn.Parameter] = ()
) -> list[dict[str, object]]:
    """Two groups: matrices and kernels with decay, everything else without.

    Decay pulls biases, norms, scales, tokens and positions towards a value that has no meaning
    (Loshchilov and Hutter 2019; the split is that of ViT's and DeiT's training code).

    Args:
        model: whose parameters.
        weight_decay: of the first group.
        elsewhere: parameters that another optimiser has.
    """
    decayed, free, left_out = [], [], set(elsewhere)
    for name, parameter in model.named_parameters():
        if parameter in left_out:
            continue
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


def make_optimizers(model: nn.Module, config: TrainConfig) -> tuple[torch.optim.Optimizer, ...]:
    """The configured optimisers, over all weights of the model together.

    Muon takes the matrices of the transformer's blocks, AdamW the rest: stem, positions, head,
    biases and norms (Jordan et al. 2024). Muon's step is scaled to the size of one of AdamW's, so
    that one learning rate and one weight decay serve both (Liu et al. 2025, section 2.2).
    """
    fused = next(model.parameters()).device.type != "mps"
    matrices: list[nn.Parameter] = []
    if config.optimizer == "muon":
        matrices = [
            parameter
            for name, parameter in model.named_parameters()
            if ".blocks." in f".{name}" and parameter.ndim == 2
        ]
    groups = parameter_groups(model, config.weight_decay, matrices)
    kind = KerasAdam if config.optimizer == "keras_adam" else torch.optim.AdamW
    rest = kind(groups, lr=0.0, betas=config.betas, fused=fused)
    if not matrices:
        return (rest,)
    muon = torch.optim.Muon(
        matrices, lr=0.0, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return muon, rest
