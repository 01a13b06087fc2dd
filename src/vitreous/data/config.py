"""How pictures are divided, cached and augmented."""

import math
from dataclasses import dataclass

from vitreous.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to each batch of training pictures.

    Args:
        flip: chance of a left-right flip.
        shift: largest shift as a share of the side.
        scale: largest relative change of size.
        aspect: largest relative change of the aspect ratio.
        rotate_degrees: largest rotation.
        shear_degrees: largest shear.
        affine_chance: share of the pictures that get the changes of geometry above.
        brightness: largest change, in standard deviations of what the model is given.
        contrast, saturation: largest relative change.
        color_chance: share of the pictures that get the changes of colour.
        erase_chance: share of the pictures in which a rectangle is replaced by noise.
        mixup_alpha: Beta parameter of mixup (Zhang et al. 2018); 0 turns it off.
        cutmix_alpha: Beta parameter of CutMix (Yun et al. 2019); 0 turns it off.
        mix_chance: share of the batches that are mixed, by either method with equal chance.
        plain_share: share of the steps at the end that train without mixing and erasing.
    """

    flip: float = 0.5
    shift: float = 0.1
    scale: float = 0.15
    aspect: float = 0.1
    rotate_degrees: float = 12.0
    shear_degrees: float = 6.0
    affine_chance: float = 0.8
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    color_chance: float = 0.8
    erase_chance: float = 0.15
    mixup_alpha: float = 0.2
    cutmix_alpha: float = 1.0
    mix_chance: float = 0.2
    plain_share: float = 0.1

    def __post_init__(self) -> None:
        for name in ("flip", "affine_chance", "color_chance", "erase_chance", "mix_chance",
                     "plain_share"):  # fmt: skip
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"augment.{name} is {getattr(self, name)}: it lies in [0, 1]")
        for name in ("scale", "aspect", "brightness", "contrast", "saturation"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"augment.{name} is {getattr(self, name)}: it lies in [0, 1)")
        for name in ("shift", "rotate_degrees", "mixup_alpha", "cutmix_alpha"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"augment.{name} is {getattr(self, name)}: it is 0 or more")
        if not 0.0 <= self.shear_degrees < 90.0:
            raise ConfigError(f"augment.shear_degrees is {self.shear_degrees}: it lies in [0, 90)")


#: Every change off: the pictures as they are.
NO_AUGMENTATION = AugmentConfig(
    flip=0.0, affine_chance=0.0, color_chance=0.0, erase_chance=0.0, mix_chance=0.0
)


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures are and how they are kept.

    Args:
        source: folder or table.
        cache_dir: folder of decoded pictures; ``None`` means the user's cache folder.
        max_cache_gb: largest size of that folder in GB (10^9 bytes).
        shuffle_buffer: pictures that are shuffled among one another where shards are streamed.
        calibration_share: of each class' training pictures, put aside for the promises of
            `predict` alone, where the source names no calibration pictures; 0 puts none aside.
        overlay: a file of changes to what the source lists (see `overlay`); a run keeps a copy of
            it, which is the one named here.
        check: look for faults among the pictures before they are learned from, as `check` does,
            where that takes little of the time.
    """

    source: str
    cache_dir: str | None = None
    max_cache_gb: float = 20.0
    shuffle_buffer: int = 8192
    calibration_share: float = 0.0
    overlay: str | None = None
    check: bool = True

    def __post_init__(self) -> None:
        if not self.max_cache_gb > 0:
            raise ConfigError(f"data.max_cache_gb is {self.max_cache_gb}: it is above 0")
        if self.shuffle_buffer < 1:
            raise ConfigError(f"data.shuffle_buffer is {self.shuffle_buffer}: it is 1 or more")
        if not 0.0 <= self.calibration_share <= 0.5:
            raise ConfigError(
                f"data.calibration_share is {self.calibration_share}: it lies in [0, 0.5]"
            )
