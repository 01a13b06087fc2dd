"""The optimiser, with weight decay only where it belongs."""

# Loops over many tensors at once, of which PyTorch's own optimisers are made:
# pyright: reportPrivateImportUsage=false

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.core.threads import SideBySide
from vitreous.training.config import TrainConfig

_NOT_MATRICES = ("cls_token", "reg_token", "mask_token", "pos_embed", "latent")
#: What stands before a ViT's first block.
_INPUT = ("patch_embed", "cls_token", "reg_token", "pos_embed", "norm_pre")


def parameter_groups(
    model: nn.Module, config: TrainConfig, matrices: Collection[nn.Parameter] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Parameters that have weight decay and rate in common, of two optimisers.

    Decay pulls biases, norms, scales, tokens and positions towards a value that has no meaning
    (Loshchilov and Hutter 2019; the split is that of ViT's and DeiT's training code), so only
    matrices and kernels have it. What doesn't learn is in no group.

    Args:
        model: whose parameters.
        config: weight decay, and how much slower than the head each layer learns.
        matrices: parameters that the first of the optimisers has.

    Returns:
        Groups of the `matrices`, and of all others; ``rate_share`` is that of the run's rate.
    """
    groups: tuple[dict[tuple[float, float], list[nn.Parameter]], ...] = ({}, {})
    own = set(matrices)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and name.split(".")[-1] not in _NOT_MATRICES
        decay = config.weight_decay if is_matrix else 0.0
        share = config.layer_decay ** _layers_above(name, model)
        groups[parameter not in own].setdefault((decay, share), []).append(parameter)
    first, rest = (
        [
            {"params": params, "weight_decay": decay, "rate_share": share}
            for (decay, share), params in sorted(
                some.items(), key=lambda item: item[0], reverse=True
            )
        ]
        for some in groups
    )
    return first, rest


def _layers_above(name: str, model: nn.Module) -> int:
    """Layers between a parameter and the output: 0 for the head, depth + 1 for the patches.

    The last norm counts with the last block, as timm has it.
    """
    first, _, rest = name.partition(".")
    depth = len(getattr(model, "blocks", ()))
    if first == "blocks":
        return depth - int(rest.partition(".")[0])
    return depth + 1 if first in _INPUT else int(first == "norm")


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


class Muon(torch.optim.Optimizer):
    """Momentum whose step is turned into the nearest orthogonal matrix (Jordan et al. 2024).

    The same numbers as `torch.optim.Muon` with ``adjust_lr_fn="match_rms_adamw"``, which multiplies
    in bfloat16 even where that is emulated: up to ten times slower there than float32.

    Args:
        groups: two-dimensional parameters; each group's weight decay is decoupled, times the rate.
        precision: of the products.
        each: applies a function to each of the matrices' shapes, like ``map``.

    Attributes:
        found_inf: 1 where gradients are no numbers and the step is to change nothing, else 0; a
            scalar beside the weights, of the same name in PyTorch's fused optimisers.
    """

    MOMENTUM = 0.95
    found_inf: Tensor | None = None

    def __init__(
        self,
        groups: list[dict[str, Any]],
        precision: torch.dtype,
        each: Callable[[Callable[[Any], None], Iterable[Any]], Iterable[None]] = map,
    ) -> None:
        super().__init__(groups, {"lr": 0.0})
        self.precision, self._each = precision, each

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step; there is no closure to evaluate."""
        for group in self.param_groups:
            by_shape = defaultdict[torch.Size, list[nn.Parameter]](list)
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                by_shape[matrix.shape].append(matrix)
                # Made here, so that the threads don't decide the order of a checkpoint's entries.
                if not self.state[matrix]:
                    self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
            step = partial(self._step_together, group["lr"], group["weight_decay"])
            list(self._each(step, by_shape.values()))

    @torch.no_grad()
    def _step_together(
        self, rate: float | Tensor, decay: float, matrices: Sequence[nn.Parameter]
    ) -> None:
        """Take the step of matrices of one shape: small products alone mostly wait."""
        weights = list[Tensor](matrices)
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        keep: Any = 1 - rate * decay
        if self.found_inf is not None:
            is_bad = self.found_inf > 0
            gradients = [
                torch.where(is_bad, momentum, gradient)
                for momentum, gradient in zip(momenta, gradients, strict=True)
            ]
            keep = (1.0 - self.found_inf) * keep + self.found_inf
        torch._foreach_lerp_(momenta, gradients, 1 - self.MOMENTUM)
        # Nesterov: the gradient, with the momentum that it is now part of.
        updates = torch.stack(torch._foreach_lerp(gradients, momenta, self.MOMENTUM))
        updates = orthogonalise(updates.to(self.precision)).to(weights[0].dtype)
        if self.found_inf is not None:
            updates = updates.masked_fill(self.found_inf > 0, 0.0)
        # Their mean square is that of a step of AdamW (Liu et al. 2025, section 2.2).
        scale = 0.2 * max(weights[0].shape) ** 0.5
        torch._foreach_mul_(weights, keep)
        torch._foreach_add_(weights, updates.mul_(-rate * scale).unbind())


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring all singular values near 1, by five Newton-Schulz steps of the fifth order.

    Shape:
        (matrices, rows, columns) -> the same

    Reference:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the
        coefficients given there, which bring the values near 1 fast rather than exactly.
    """
    a, b, c = 3.4445, -4.775, 2.0315
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def make_optimizers(
    model: nn.Module,
    config: TrainConfig,
    precision: torch.dtype,
    threads: SideBySide,
    recorded: bool = False,
) -> tuple[torch.optim.Optimizer, ...]:
    """The configured optimisers, over all weights of the model together.

    Muon takes the matrices of the transformer's blocks, AdamW the rest: stem, positions, head,
    biases and norms. One learning rate and one weight decay serve both. A part of the pixels'
    way to the classes may learn slower, the farther from the head (`TrainConfig.layer_decay`).

    Args:
        model: whose parameters.
        config: which optimisers, with which settings.
        precision: of Muon's products.
        threads: among which those are divided.
        recorded: whether steps are recorded (see `captured`): the rate is a tensor then.
    """
    fused = next(model.parameters()).device.type != "mps"
    matrices: list[nn.Parameter] = []
    if config.optimizer == "muon":
        matrices = [
            parameter
            for name, parameter in model.named_parameters()
            if ".blocks." in f".{name}" and parameter.ndim == 2 and parameter.requires_grad
        ]
    groups_of_matrices, groups = parameter_groups(model, config, matrices)
    kind = KerasAdam if config.optimizer == "keras_adam" else torch.optim.AdamW
    rest = kind(groups, lr=0.0, betas=config.betas, fused=fused, capturable=recorded)
    muon = (Muon(groups_of_matrices, precision, threads.map),) if matrices else ()
    optimizers = (*muon, rest)
    if recorded:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.zeros((), device=group["params"][0].device)
    return optimizers


def take_steps(optimizers: Sequence[torch.optim.Optimizer], found_inf: Tensor) -> None:
    """Let each take its step, and forget the gradients.

    Args:
        optimizers: of `make_optimizers`.
        found_inf: 1 where a gradient is no number, so that nothing may change, else 0: a scalar on
            the device, because a host that asked for it would wait for a GPU.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, Muon) or optimizer.defaults["fused"]:
            optimizer.found_inf = found_inf  # pyright: ignore[reportAttributeAccessIssue]
            optimizer.step()
        elif not found_inf:
            optimizer.step()
        optimizer.zero_grad()


def set_rates(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of the next step; each group of parameters has its share of it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            own = rate * group["rate_share"]
            is_tensor = isinstance(group["lr"], Tensor)
            group["lr"] = group["lr"].fill_(own) if is_tensor else own
