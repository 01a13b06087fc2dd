"""Who is drawn, how it is photographed and what the face does: sampled, each field on its own.

Faces are described in face units: the head's centre is (0, 0), its chin (0, 1), y points down.
"""

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.random import Generator

Colour = tuple[int, ...]

EXPRESSIONS: tuple[str, ...] = ("angry", "happy", "sad")
BLACK = (0, 0, 0)
# fmt: off
SKINS = ((255, 226, 206), (244, 200, 166), (222, 168, 126), (184, 128, 90), (142, 94, 66),
         (108, 72, 54))
HAIRS = ((24, 20, 20), (36, 26, 24), (56, 38, 28), (90, 58, 36), (140, 86, 46), (176, 80, 38),
         (214, 172, 96), (238, 214, 150), (150, 148, 146), (224, 222, 218), (206, 92, 140),
         (80, 120, 180))
IRISES = ((60, 36, 22), (100, 62, 30), (70, 116, 64), (64, 116, 170), (110, 122, 134))
# fmt: on


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour that lies between two: `a` for a share of 0, `b` for 1."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


# Where a field's default would stand, the classes below say what it is drawn from. All of these
# are calls of dataclasses.field, which ruff can't see.
# ruff: noqa: RUF009


def _drawn(draw: Callable[..., Any]) -> Any:
    return field(metadata={"draw": draw})


def _between(low: float, high: float) -> Any:
    return _drawn(lambda rng: rng.uniform(low, high))


def _around(middle: float, spread: float) -> Any:
    return _drawn(lambda rng: float(np.clip(rng.normal(middle, spread), -3 * spread, 3 * spread)))


def _weighted(rng: Generator, weights: Mapping[str, float]) -> str:
    bounds = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(bounds, rng.random() * bounds[-1], "right"))]


def _kind(**weights: float) -> Any:
    return _drawn(lambda rng: _weighted(rng, weights))


def _one_of(colours: tuple[Colour, ...]) -> Any:
    return _drawn(lambda rng: colours[int(rng.integers(len(colours)))])


def _tint(rng: Generator) -> Colour:
    hue, saturation, value = rng.uniform((0, 0.1, 0.25), (1, 0.65, 0.98))
    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def _skin(rng: Generator) -> Colour:
    tone = rng.uniform(0, len(SKINS) - 1.001)
    between = mix(SKINS[int(tone)], SKINS[int(tone) + 1], tone % 1)
    return tuple(int(part) for part in np.clip(between + rng.normal(0, 5, 3), 0, 255))


def _by(*ranges: tuple[float, float]) -> Any:
    """A range from mild to strong for each expression, in the order of `EXPRESSIONS`."""

    def draw(rng: Generator, expression: str, strength: float) -> float:
        low, high = ranges[EXPRESSIONS.index(expression)]
        return low + (high - low) * float(np.clip(strength + rng.uniform(-0.25, 0.25), 0, 1))

    return _drawn(draw)


def _often(*shares: float) -> Any:
    return _drawn(lambda rng, name, _: rng.random() < shares[EXPRESSIONS.index(name)])


def _kind_by(*weights: Mapping[str, float]) -> Any:
    return _drawn(lambda rng, name, _: _weighted(rng, weights[EXPRESSIONS.index(name)]))


@dataclass(frozen=True)
class _Sampled:
    @classmethod
    def sample(cls, rng: Generator, *mood: str | float) -> Self:
        return cls(**{item.name: item.metadata["draw"](rng, *mood) for item in fields(cls)})


@dataclass(frozen=True)
class Shot(_Sampled):
    """How the picture is taken; lengths in picture widths, angles in radians."""

    x: float = _between(0.45, 0.55)
    y: float = _between(0.49, 0.56)
    scale: float = _between(0.33, 0.43)
    roll: float = _around(0, 0.11)
    yaw: float = _between(-0.2, 0.2)
    pitch: float = _between(-0.05, 0.05)
    backdrop: str = _kind(plain=3, gradient=4, stripes=2, discs=2, blocks=2)
    colours: list[Colour] = _drawn(lambda rng: [_tint(rng) for _ in range(4)])
    pattern: np.ndarray = _drawn(lambda rng: rng.random((6, 3)))
    light: np.ndarray = _drawn(lambda rng: rng.uniform(-0.18, 0.18, 2))
    gain: np.ndarray = _drawn(lambda rng: rng.uniform(0.88, 1.1) * rng.uniform(0.94, 1.06, 3))
    contrast: float = _between(0.72, 1.15)
    grey: bool = _drawn(lambda rng: rng.random() < 0.08)
    blur: float = _between(0, 0.008)
    noise: float = _between(0, 8)


@dataclass(frozen=True)
class Look(_Sampled):
    """Who is in the picture; lengths in face units."""

    width: float = _between(0.7, 0.88)
    jaw: float = _between(2.0, 3.0)
    taper: float = _between(0.02, 0.2)
    skin: Colour = _drawn(_skin)
    ear: float = _between(0.12, 0.22)
    hair: Colour = _one_of(HAIRS)
    strands: str = _kind(smooth=5, curly=3, spiky=1.5)
    volume: float = _between(0.05, 0.16)
    hairline: str = _kind(bald=1.2, receding=1, straight=2, fringe=2, parting=2.5, peak=1.5)
    back: str = _kind(none=5, long=3, bun=0.7, puffs=0.7)
    back_length: float = _between(0.4, 1.8)
    beard: str = _kind(none=6, stubble=1, full=1, moustache=1, goatee=0.7)
    hat: str = _kind(none=7, beanie=1, cap=1, hood=0.8)
    hat_colour: Colour = _drawn(_tint)
    clothes: Colour = _drawn(_tint)
    eye_x: float = _between(0.3, 0.37)
    eye_y: float = _between(-0.1, 0.02)
    eye_size: float = _between(0.14, 0.2)
    eye_shape: float = _between(0.62, 0.9)
    lashes: bool = _drawn(lambda rng: rng.random() < 0.3)
    iris: Colour = _one_of(IRISES)
    iris_size: float = _between(0.7, 0.87)
    brow_gap: float = _between(0.06, 0.1)
    brow_width: float = _between(0.045, 0.1)
    brow_arch: float = _between(0.0, 0.08)
    brow_tilt: float = _around(0, 0.04)
    nose: str = _kind(button=2, line=2, hook=2, broad=2)
    nose_width: float = _between(0.07, 0.14)
    nose_y: float = _between(0.2, 0.29)
    mouth_y: float = _between(0.5, 0.56)
    mouth_width: float = _between(0.28, 0.36)
    mouth_skew: float = _around(0, 0.02)
    lip: float = _between(0.015, 0.06)
    lip_red: float = _between(0.25, 0.6)
    glasses: str = _kind(none=4, round=1, square=1)
    glasses_colour: Colour = _drawn(lambda rng: mix(_tint(rng), BLACK, rng.uniform(0.3, 0.9)))
    blush: float = _between(-60, 60)
    age: float = _between(-120, 90)
    freckles: np.ndarray = _drawn(
        lambda rng: rng.uniform(-1, 1, (12, 2)) if rng.random() < 0.1 else np.zeros((0, 2))
    )
    cover: str = _kind(none=8, hand=1, shawl=0.7, strap=0.7)
    cover_colour: Colour = _drawn(_tint)
    side: int = _drawn(lambda rng: int(rng.choice((-1, 1))))


@dataclass(frozen=True)
class Expression(_Sampled):
    """What the face does; lengths in face units, lids as shares of the eye's height."""

    #               mild   strong; angry, happy, sad
    brow_tilt: float = _by((0.34, 0.64), (-0.12, 0.08), (-0.34, -0.6))
    brow_raise: float = _by((-0.03, -0.08), (0.0, 0.08), (0.01, 0.07))
    upper_lid: float = _by((0.1, 0.25), (0.0, 0.15), (0.15, 0.35))
    lower_lid: float = _by((0.05, 0.2), (0.12, 0.35), (0.0, 0.1))
    lid_slant: float = _by((0.4, 0.8), (-0.15, 0.1), (-0.4, -0.65))
    closed: bool = _often(0, 0.15, 0.12)
    gaze: float = _by((-0.1, 0.2), (-0.2, 0.15), (-0.1, 0.5))
    mouth: str = _kind_by(
        {"shut": 4, "clenched": 3, "shout": 3},
        {"shut": 4, "grin": 3, "laugh": 3},
        {"shut": 5, "pout": 2, "sob": 2.5},
    )
    curve: float = _by((-0.05, -0.16), (0.12, 0.26), (-0.09, -0.24))
    width: float = _by((0.95, 0.75), (0.95, 1.2), (0.95, 0.7))
    open: float = _by((0, 1), (0, 1), (0, 1))
    frown: float = _by((50, 170), (0, 0), (0, 60))
    cheeks: float = _by((0, 0), (60, 160), (0, 0))
    tear: bool = _often(0, 0.02, 0.12)
