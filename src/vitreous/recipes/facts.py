"""What a recipe is told about the pictures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """The pictures in numbers.

    Args:
        source: the folder or table, as it will be opened again.
        num_pictures: all pictures listed that may be trained on.
        num_classes: of them.
        typical_side: median shorter side in pixels.
    """

    source: str
    num_pictures: int
    num_classes: int
    typical_side: int
