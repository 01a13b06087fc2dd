"""The methods under the names that a person calls them by, all asked in the same way."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor

from vitreous.explanation.gradients import integrated_gradients
from vitreous.explanation.places import places
from vitreous.explanation.relevance import relevance
from vitreous.explanation.rollout import attention, rollout
from vitreous.model.vit import ViT

MethodName = Literal["relevance", "integrated", "rollout", "attention"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)


class Method(Protocol):
    """Something that maps pictures by how much their parts count for a class."""

    def __call__(self, model: ViT, images: Tensor, blurred: Tensor, classes: Tensor) -> Tensor:
        """Explain a batch.

        Args:
            model: in evaluation mode.
            images: normalised.
            blurred: the same pictures blurred.
            classes: index for each.

        Shape:
            two of (batch, channels, height, width), (batch,) int64 -> (batch, height, width)
        """
        ...


@dataclass(frozen=True)
class Named:
    """A `Method` by its name.

    Args:
        name: of the method.
        layer: of "attention": index of the block, by default the last thing that attends.
        head: of "attention": index of the head, by default the mean of all.
        mirror: whether the answer is the mean over a picture and its mirror image, so that the
            map is too.
    """

    name: MethodName
    layer: int | None = None
    head: int | None = None
    mirror: bool = False

    def __call__(self, model: ViT, images: Tensor, blurred: Tensor, classes: Tensor) -> Tensor:
        if not self.mirror:
            return self._explain(model, images, blurred, classes)
        # One after the other, because attention with its gradients takes much memory.
        straight = self._explain(model, images, blurred, classes)
        mirrored = self._explain(model, images.flip(-1), blurred.flip(-1), classes)
        return (straight + mirrored.flip(-1)) / 2

    def _explain(self, model: ViT, images: Tensor, blurred: Tensor, classes: Tensor) -> Tensor:
        match self.name:
            case "integrated":
                return integrated_gradients(model, images, blurred, classes).sum(1)
            case "relevance":
                found = relevance(model, images, classes)
            case "rollout":
                found = rollout(model, images)
            case "attention":
                found = attention(model, images, self.layer, self.head)
        return places(model.config, (images.shape[-2], images.shape[-1])).to_pixels(found)
