"""`data.preprocess.fit` once more, as arithmetic that a graph can hold: one picture of any size.

ONNX Runtime's antialiased resize is another one, up to 13 of 255 away, and each runtime has its
own. So scaling is two products with matrices of weights here, made
from the picture's size inside the graph, with the weights and the sums rounded to whole numbers
as Pillow and PyTorch round them.
"""

import torch
from torch import Tensor, nn

from vitreous.data.preprocess import REACH, Preprocess

#: Weights are whole numbers below this, ...
_LARGEST_WEIGHT = 2**15
#: ... and are multiplied by this many powers of two at most.
_MOST_BITS = 22
#: Keys' cubic convolution (1981) with the slope that Pillow chose.
_CUBIC = -0.5


class Fit(nn.Module):
    """Scale a picture until it covers the wanted size, and crop its centre.

    Sizes and places are whole numbers in tensors, so that a traced graph computes them anew for
    every picture, and exactly wherever it runs; the size of what comes out is known beforehand.

    Args:
        preprocess: sizes and interpolation.

    Shape:
        (height, width, 3) uint8 -> (image height, image width, 3), whole numbers in float32
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self._seen = preprocess.image_size
        self._cover = preprocess.cover
        self._interpolation = preprocess.interpolation

    def forward(self, picture: Tensor) -> Tensor:
        lengths = picture.shape[0], picture.shape[1]
        height, width = (torch.scalar_tensor(length, dtype=torch.int64) for length in lengths)
        # The axis along which there is nothing to spare: so many pixels become so many.
        by_height = self._cover[0] * width >= self._cover[1] * height
        few = torch.where(by_height, height, width)
        become = torch.where(by_height, *self._cover)
        axes = []
        for length, side, goal, seen in zip(
            lengths, (height, width), self._cover, self._seen, strict=True
        ):
            most = _divided(REACH * goal * few + become - 1, become)
            cut = _divided((side - most).clamp(min=0), 2)
            side = side - 2 * cut
            axes.append((length, cut, side, _divided(side * become, few), seen))
        down, across = self._weights(*axes[0], into=0), self._weights(*axes[1], into=1)
        channels = _rounded(picture.permute(2, 0, 1).double() @ across[0], across[1])
        return _rounded(down[0] @ channels, down[1]).permute(1, 2, 0).float()

    def _weights(
        self, length: int, cut: Tensor, side: Tensor, scaled: Tensor, seen: int, into: int
    ) -> tuple[Tensor, Tensor]:
        """What each pixel that is seen is made of, along one axis.

        Args:
            length: of the picture, in pixels.
            cut: pixels that are left out at either end.
            side: pixels between them.
            scaled: pixels that these become.
            seen: how many of those are seen, the ones in the middle.
            into: the dimension of these in the weights. A transposed matrix would do too, but ONNX
                Runtime for the web makes one operation of that and a product, and lacks it for
                float64.

        Returns:
            The weights, (seen, length) or (length, seen), whole numbers in float64, and what they
            add up to.
        """
        last = scaled - 1
        # The weights are largest there where the filter ends at the edge, seen or not.
        edges = torch.stack([0 * last, last.clamp(max=1), (last - 1).clamp(min=0), last])
        rows = torch.cat([_divided(scaled - seen, 2) + torch.arange(seen), edges])
        rows, pixels = rows.unsqueeze(1 - into), (torch.arange(length) - cut).unsqueeze(into)
        # From one middle to the other, in pixels of the larger of both pictures.
        apart = (2 * pixels + 1) * scaled - (2 * rows + 1) * side
        apart = apart.abs().double() / (2 * torch.maximum(side, scaled)).double()
        weights = _filter(apart, self._interpolation)
        weights = torch.where((pixels >= 0) & (pixels < side), weights, 0.0)
        weights = weights / weights.sum(1 - into, keepdim=True)
        powers = 2.0 ** torch.arange(1, _MOST_BITS + 1, dtype=torch.float64)
        fits = torch.floor(0.5 + weights.max() * powers) < _LARGEST_WEIGHT
        unit = torch.where(fits, powers, 1.0).max()
        weights = weights.narrow(into, 0, seen)
        whole = weights.sign() * torch.floor(weights.abs() * unit + 0.5)
        return whole, unit


def _divided(number: Tensor, by: int | Tensor) -> Tensor:
    """Rounded down. The half keeps the quotient off the whole numbers, which OpenVINO may miss."""
    return torch.floor((number.double() + 0.5) / by).long()


def _filter(apart: Tensor, interpolation: str) -> Tensor:
    """The weight of a pixel at some distance, before weights are made to add up to 1."""
    if interpolation == "bilinear":
        return (1 - apart).clamp(min=0)
    near = ((_CUBIC + 2) * apart - (_CUBIC + 3)) * apart * apart + 1
    far = (((apart - 5) * apart + 8) * apart - 4) * _CUBIC
    return torch.where(apart < 1, near, torch.where(apart < 2, far, 0.0))


def _rounded(sums: Tensor, unit: Tensor) -> Tensor:
    """Weighted sums as bytes, but in float64, which holds them exactly; float32 would not."""
    return torch.floor(sums / unit + 0.5).clamp(0, 255)
