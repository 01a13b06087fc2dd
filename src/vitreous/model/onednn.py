"""Dense layers in float32 by oneDNN, where PyTorch would ask a slower library.

PyTorch computes a layer's three products by MKL, whose kernels are made for another maker's
processors. On one of AMD's with AVX-512, oneDNN is ahead in two of them, forwards and in the
input's gradient, and behind in the weight's (docs/experiments/LOG.md).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vitreous.core.machine import is_by_amd

#: A product of fewer weights is over before oneDNN has begun, which takes it some 15 microseconds.
_FEWEST_WEIGHTS = 100_000


def prefer_onednn(model: nn.Module) -> None:
    """Let oneDNN compute a model's large layers (`use_onednn`) where it is known to be faster."""
    is_plain = all(
        (weights.device.type, weights.dtype) == ("cpu", torch.float32)
        for weights in model.parameters()
    )
    is_measured = is_by_amd() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    if is_plain and is_measured and has_onednn():
        use_onednn(model)


def has_onednn() -> bool:
    """Whether this PyTorch has the operation; its name is PyTorch's own business."""
    is_there = torch.backends.mkldnn.is_available()
    return is_there and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def use_onednn(model: nn.Module) -> None:
    """Let oneDNN compute the large layers of a model, which keeps its weights and their names.

    Args:
        model: float32, on a CPU; changed in place. Not for what is to be exported or compiled:
            its layers become one operation that only PyTorch knows.
    """
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.numel() >= _FEWEST_WEIGHTS:
            module.__class__ = OneDnnLinear


class OneDnnLinear(nn.Linear):
    """`nn.Linear` by other kernels.

    Shape:
        (..., in) -> (..., out), float32
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return _Product.apply(input, self.weight, self.bias)
        return _onednn(input, self.weight, self.bias)  # a small model's time is in such calls


class _Product(torch.autograd.Function):
    """x W^T + b, which can't be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _onednn(rows, weight.t(), None).view(x.shape) if of_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product as PyTorch's compiler asks for it, with nothing fused behind."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
