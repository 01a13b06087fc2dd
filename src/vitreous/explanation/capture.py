"""One forward pass with every attention weight kept, ready for gradients where they are wanted.

A model computes attention by one fused operation that gives no weights, and it stays that way:
here PyTorch's own means of standing in for a function (`TorchFunctionMode`) puts plain operations
in its place while the pass lasts. So folded heads, turned queries and keys, and the attention that
pools are caught alike, and a model has neither a second forward pass nor a switch.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vitreous.model.vit import ViT


@dataclass(frozen=True)
class Captured:
    """What a picture became on its way through a model.

    Args:
        logits: of every class.
        tokens: behind the last block and norm: class token, registers, patches.
        attention: weights of each block; a row is a token that looks and sums to 1.
        pooling: weights of the patches where the pooling has some, else ``None``.

    Shape:
        logits: (batch, classes)
        tokens: (batch, tokens, embed)
        attention: depth times (batch, heads, tokens, tokens)
        pooling: (batch, heads, 1, patches) of "map", (batch, patches, 1) of "seq"
    """

    logits: Tensor
    tokens: Tensor
    attention: tuple[Tensor, ...]
    pooling: Tensor | None


def capture(model: ViT, images: Tensor, gradients: bool = True) -> Captured:
    """Run a model in evaluation mode and keep what its answer is made of.

    Values are those of the model. Gradients are, but for one thing: the spread that a layer norm
    divides by counts as a constant. Otherwise a token that consists of hardly anything but what it
    was told, as class tokens do, could grow or shrink without changing the answer, its gradient
    would be blind to just that part, and the patch that decides would come out as unimportant.

    Args:
        model: in evaluation mode.
        images: normalised.
        gradients: whether it is to be differentiated by; without, it takes less memory.

    Shape:
        images: (batch, channels, height, width)

    Reference:
        Ali et al. 2022, "XAI for Transformers: Better Explanations through Conservative
        Propagation", section 4.2.
    """
    with torch.set_grad_enabled(gradients), _Watch() as watch:
        tokens = model.forward_tokens(images)
        logits = model.forward_head(tokens)
    depth = model.config.depth
    pooling = watch.seen[depth] if len(watch.seen) > depth else None
    return Captured(logits, tokens, tuple(watch.seen[:depth]), pooling)


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Logarithm of p / (1 - p) of a class for each picture: what all methods here explain.

    A logit alone means nothing without the others, and the gradient of a probability vanishes
    where the model is sure.

    Shape:
        (batch, classes), (batch,) int64 -> (batch,)
    """
    chosen = F.one_hot(classes, logits.shape[1]).bool()
    if logits.shape[1] == 1:
        return logits[:, 0]
    others = logits.masked_fill(chosen, -torch.inf)
    return logits[chosen] - others.logsumexp(1)


class _Watch(TorchFunctionMode):
    """Stands in for fused attention and layer norms, and keeps what softmax gives.

    Attributes:
        seen: attention weights in the order of their computation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.layer_norm:
            return _layer_norm(*args, **kwargs)
        result = func(*args, **kwargs)
        return self._keep(result) if func is Tensor.softmax else result

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        dropout_p: float = 0.0,
        scale: float | None = None,
    ) -> Tensor:
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        weights = ((query * factor) @ key.transpose(-2, -1)).softmax(-1)
        return self._keep(weights) @ value

    def _keep(self, weights: Tensor) -> Tensor:
        # The first of a model whose weights are frozen.
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights.requires_grad_()
        self.seen.append(weights)
        return weights


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """As PyTorch's over the last axis, with a spread that has no gradient."""
    centred = input - input.mean(-1, keepdim=True)
    spread = (centred.detach().square().mean(-1, keepdim=True) + eps).sqrt()
    normed = centred / spread
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias
