"""Which published weights ``--weights auto`` begins with: small, freely licensed ones.

Both are plain ViTs of AugReg (Steiner et al. 2022, "How to train your ViT?"), learned from
ImageNet-21k and then ImageNet-1k. Weights whose licence asks for more than naming its authors, such
as DINOv3's, are never among them.
"""

from dataclasses import dataclass

#: Shorter side in pixels up to which pictures hold little that a wider model would find.
SMALL_SIDE = 128


@dataclass(frozen=True)
class Pretrained:
    """A model on the hub.

    Args:
        id: owner and name; which commit that is, the download settles.
        licence: of the weights, by its SPDX name.
        parameters: of the model, in millions.
        megabytes: to download.
    """

    id: str
    licence: str
    parameters: float
    megabytes: float

    def __str__(self) -> str:
        return (
            f"{self.id} ({self.parameters:g} M parameters, {self.megabytes:g} MB to download, "
            f"{self.licence})"
        )


TINY = Pretrained("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "Apache-2.0", 5.7, 22.9)
SMALL = Pretrained("timm/vit_small_patch16_224.augreg_in21k_ft_in1k", "Apache-2.0", 22.1, 88.2)


def choose_pretrained(typical_side: int, has_accelerator: bool) -> tuple[Pretrained, str]:
    """The weights for some pictures and this machine.

    Args:
        typical_side: median shorter side in pixels.
        has_accelerator: whether something faster than a CPU computes.

    Returns:
        The weights and why, half a sentence.
    """
    if typical_side <= SMALL_SIDE:
        return TINY, f"the pictures' shorter side is {typical_side} px, up to {SMALL_SIDE} is small"
    if not has_accelerator:
        return TINY, "a CPU computes: four times the operations would take most of the time"
    return SMALL, f"the pictures' shorter side is {typical_side} px, and no CPU has to compute"
