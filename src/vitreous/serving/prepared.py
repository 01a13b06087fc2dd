"""How the pictures of a checkpoint are prepared: what its file says, and what a person adds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitreous.core.config import did_you_mean
from vitreous.data.preprocess import MOST_PIXELS_A_SIDE, Preprocess
from vitreous.errors import ConfigError, WeightsError
from vitreous.model.weights.settings import Preprocessing

#: By name, each for pictures of 224 px: how published models are evaluated.
NAMED = {
    "imagenet": Preprocess(
        resize=(256, 256), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "half": Preprocess(resize=(248, 248), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "clip": Preprocess(
        mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
    ),
}
_SINGLE = ("mean", "std", "resize", "crop", "interpolation")


def prepare(
    where: Path,
    stated: Preprocessing | None,
    image_size: tuple[int, int],
    told: Sequence[str],
) -> tuple[Preprocess, str]:
    """Put together how a picture becomes a checkpoint's input.

    What a person says goes before what the file says. A name's sizes are those for 224 px; for a
    model of another size, or with another crop, they grow with it.

    Args:
        where: the checkpoint, for messages.
        stated: what its file says.
        image_size: height and width in pixels that the model was trained with.
        told: names of `NAMED`, and settings such as ``mean=0.5,0.5,0.5``, ``resize=256``,
            ``crop=224`` or ``interpolation=bilinear``.

    Returns:
        The preprocessing, and the same in words.

    Raises:
        ConfigError: for a word that says nothing, or a value that makes no sense.
        WeightsError: where mean and std are known from nowhere.
    """
    names, single = _words(told)
    crop = _pixels("crop", single["crop"]) if "crop" in single else None
    if names:
        found = NAMED[names[0]].at((crop, crop) if crop else image_size)
    else:
        found = _as_stated(where, stated or Preprocessing(), image_size, single)
        found = found.at((crop, crop)) if crop else found
    found = _changed(found, single)
    (tall, wide), (height, width) = found.cover, found.image_size
    return found, (
        f"pictures scaled to cover {tall}x{wide} px ({found.interpolation}), the middle "
        f"{height}x{width} px; mean {_row(found.mean)}, std {_row(found.std)}"
    )


def _words(told: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The names and the single settings among what was said, known ones, each once."""
    names, single = [], {}
    for word in told:
        key, equals, value = word.partition("=")
        known = tuple(_SINGLE if equals else NAMED)
        if key not in known:
            raise ConfigError(f"--preprocess {word}: {did_you_mean(key, known)}")
        if key in single or (names and not equals):
            other = key if equals else names[0]
            raise ConfigError(f"--preprocess {word} and {other} exclude each other: give one")
        if equals:
            single[key] = value
        else:
            names.append(key)
    return names, single


def _as_stated(
    where: Path,
    stated: Preprocessing,
    image_size: tuple[int, int],
    single: Mapping[str, str],
) -> Preprocess:
    for name in ("mean", "std"):
        if getattr(stated, name) is None and name not in single:
            raise WeightsError(
                f"{where} doesn't say how its pictures were prepared: add --preprocess imagenet, "
                "half (mean and std 0.5) or clip, or mean=R,G,B and std=R,G,B"
            )
    plain = Preprocess()
    size = stated.image_size or image_size
    try:
        return Preprocess(
            image_size=size,
            resize=stated.resize,
            interpolation="bilinear" if stated.interpolation == "bilinear" else "bicubic",
            mean=stated.mean or plain.mean,
            std=stated.std or plain.std,
            mirror=stated.mirror or False,
        )
    except ConfigError as error:
        raise WeightsError(
            f"{where} states a preprocessing that can't be: {error}; say another with --preprocess"
        ) from None


def _changed(found: Preprocess, single: Mapping[str, str]) -> Preprocess:
    """The preprocessing with single settings changed."""
    for name, text in single.items():
        if name in ("mean", "std"):
            found = replace(found, **{name: _three_numbers(name, text)})
    if "resize" in single:
        side = _pixels("resize", single["resize"])
        found = replace(found, resize=(side, side))
    if (name := single.get("interpolation")) is not None:
        if name not in ("bicubic", "bilinear"):
            raise ConfigError(f"--preprocess interpolation={name}: bicubic or bilinear")
        found = replace(found, interpolation=name)
    return found


def _three_numbers(name: str, text: str) -> tuple[float, float, float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise ConfigError(
            f"--preprocess {name}={text}: write one number, or three for red, green and blue, such "
            f"as {name}=0.485,0.456,0.406"
        )
    return values[0], values[1], values[2]


def _pixels(name: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text[:9]) <= MOST_PIXELS_A_SIDE:
        raise ConfigError(
            f"--preprocess {name}={text}: a side of 1 to {MOST_PIXELS_A_SIDE} pixels, such as "
            f"{name}=224"
        )
    return int(text)


def _row(values: tuple[float, float, float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{v:.3g}" for v in values)
