"""The drawing of faces: a pen that works in face units, and one function for each part."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from vitreous.data.face_look import BLACK, Colour, Expression, Look, Shot, mix

WHITE, DARK, TOOTH = (255, 255, 255), (44, 20, 22), (246, 243, 236)
# fmt: off
# Opening when mild and when strong, share of it below the middle, squareness, width, teeth.
MOUTHS = {
    "shut":     (0.00, 0.00, 0.5, 2.0, 1.0, 0.0),
    "pout":     (0.00, 0.00, 0.5, 2.0, 0.7, 0.0),
    "clenched": (0.11, 0.17, 0.5, 5.0, 1.0, 1.0),
    "shout":    (0.20, 0.32, 0.5, 4.0, 1.0, 0.3),
    "sob":      (0.12, 0.25, 0.5, 2.4, 0.9, 0.1),
    "grin":     (0.09, 0.15, 0.8, 2.2, 1.0, 1.0),
    "laugh":    (0.16, 0.32, 0.8, 2.2, 1.0, 0.3),
}
# fmt: on
LINE = np.linspace(-1, 1, 33)


def draw(look: Look, shot: Shot, face: Expression, size: int, rng: Generator) -> np.ndarray:
    """Draw and photograph one face: uint8 of shape (size, size, 3)."""
    # A brow is less than a pixel wide in a small picture, so that needs the finer canvas.
    factor = max(2 if size >= 256 else 3, -(-160 // size))
    image = _backdrop(shot, size * factor)
    pen = _Pen(image, look, shot)
    _draw_behind(pen, look)
    _draw_head(pen, look, face)
    _draw_eyes(pen, look, face)
    _draw_beard(pen, look)
    _draw_mouth(pen, look, face)
    _draw_nose(pen, look)
    _draw_hair(pen, look)
    _draw_hat(pen, look)
    _draw_glasses(pen, look)
    _draw_brows(pen, look, face)  # over hair and glasses, as cartoonists do, so they can be seen
    _draw_cover(pen, look)
    return _photograph(image.reduce(factor), shot, rng)


class _Pen:
    """Draws shapes that are given in face units."""

    def __init__(self, image: Image.Image, look: Look, shot: Shot) -> None:
        self.draw = ImageDraw.Draw(image, "RGBA")
        self.look, self.shot, self.size = look, shot, image.width

    def half_width(self, y: np.ndarray | float) -> np.ndarray:
        """Half the head's width at the height y."""
        y = np.clip(y, -1, 1)
        tapered = 1 - self.look.taper * np.maximum(y, 0) ** 2
        return self.look.width * np.sqrt(1 - np.abs(y) ** self.look.jaw) * tapered

    def head(self, turn: np.ndarray, grow: np.ndarray | float = 1) -> np.ndarray:
        """Points on the head's outline; turn is 0 at the top and pi at the chin."""
        outline = _points(np.sign(turn) * self.half_width(-np.cos(turn)), -np.cos(turn))
        return outline * np.reshape(grow, (-1, 1))

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Turn the head, then the camera: the middle of the face moves, its outline doesn't."""
        shot, (x, y) = self.shot, points.T
        half = np.maximum(self.half_width(y), 1e-6)
        x = x + shot.yaw * np.maximum(0, half - x * x / half)
        y = y + shot.pitch * np.maximum(0, 1 - y * y)
        sin, cos = np.sin(shot.roll) * shot.scale, np.cos(shot.roll) * shot.scale
        return _points(shot.x + x * cos - y * sin, shot.y + x * sin + y * cos) * self.size

    def fill(self, points: np.ndarray, colour: Colour, alpha: float = 255) -> None:
        self.draw.polygon(self.pixels(points).ravel().tolist(), (*colour, int(alpha)))

    def stroke(
        self, points: np.ndarray, width: float, colour: Colour, alpha: float = 255, taper: float = 6
    ) -> None:
        """Draw a line that is thinner at its ends; the smaller `taper`, the longer the ends."""
        line = self.pixels(points)
        along = np.gradient(line, axis=0)
        along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        half = 0.5 * width * self.shot.scale * self.size
        side = along[:, ::-1] * (-half, half)
        side *= (1 - np.abs(np.linspace(-1, 1, len(line))) ** taper)[:, None]
        edge = np.concatenate([line + side, (line - side)[::-1]])
        self.draw.polygon(edge.ravel().tolist(), (*colour, int(alpha)))


@dataclass(frozen=True)
class _Opening:
    """An eye or a mouth: what lies between two lines; things inside it are cut off at them."""

    x: np.ndarray
    top: np.ndarray
    bottom: np.ndarray

    def outline(self, above: float = 0, below: float = 0) -> np.ndarray:
        fade = 1 - LINE**6
        upper, lower = self.top - above * fade, self.bottom + below * fade
        return np.concatenate([_points(self.x, upper), _points(self.x, lower)[::-1]])

    def cut(self, points: np.ndarray) -> np.ndarray:
        x = np.clip(points[:, 0], self.x[0], self.x[-1])
        low, high = np.interp(x, self.x, self.top), np.interp(x, self.x, self.bottom)
        return _points(x, np.clip(points[:, 1], low, high))


def _points(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    return np.stack(np.broadcast_arrays(x, y), 1)


def _bow(x: float, y: float, half: float, rise: float) -> np.ndarray:
    """An arc from left to right; its middle is `rise` below its ends, or above if negative."""
    return _points(x + half * LINE, y + rise * (1 - LINE**2))


def _oval(x: float, y: float, wide: float, high: float, power: float = 1) -> np.ndarray:
    """An ellipse; with a power below 1 it nears a rectangle."""
    turn = np.linspace(0, 2 * np.pi, 33)
    cos, sin = np.cos(turn), np.sin(turn)
    if power != 1:
        cos, sin = np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power
    return _points(x + wide * cos, y + high * sin)


def _backdrop(shot: Shot, size: int) -> Image.Image:
    """What is behind the person, in picture widths, not turned with the head."""
    first, second = shot.colours[:2]
    corners = shot.colours if shot.backdrop == "gradient" else [first] * 4
    image = Image.fromarray(np.array(corners, np.uint8).reshape(2, 2, 3))
    image = image.resize((size, size), Image.Resampling.BILINEAR, (0.5, 0.5, 1.5, 1.5))
    draw = ImageDraw.Draw(image)
    if shot.backdrop == "stripes":
        lean, step = shot.pattern[0, 0] * 2 - 1, 0.08 + 0.12 * shot.pattern[0, 1]
        for start in np.arange(-1, 2, 2 * step):
            xs = start + np.array([0, step, step + lean, lean])
            draw.polygon((_points(xs, np.array([0, 0, 1, 1])) * size).ravel().tolist(), second)
    elif shot.backdrop in ("discs", "blocks"):
        shape = draw.ellipse if shot.backdrop == "discs" else draw.rectangle
        for number, (x, y, extent) in enumerate(shot.pattern):
            half = 0.05 + 0.15 * extent
            box = np.array([x - half, y - half, x + half, y + half]) * size
            shape(box.tolist(), mix(second, WHITE, 0.1 * number))
    return image


def _strands(look: Look, turn: np.ndarray) -> np.ndarray:
    """How far the hair stands out along the head's outline, 1 for not at all."""
    if look.hat in ("beanie", "cap"):
        return np.full_like(turn, 1.04)
    waves = np.abs(np.sin(turn * 6))
    form = {"smooth": 1 + 0 * waves, "curly": 1.5 + waves, "spiky": 1.8 - 1.3 * waves}
    return 1 + look.volume * form[look.strands]


def _draw_behind(pen: _Pen, look: Look) -> None:
    """Hair at the back, neck, clothes and ears: what the head covers in part."""
    wide, low = look.width, look.back_length
    if look.back != "none" and look.hairline != "bald" and look.hat != "hood":
        turn, hair = np.linspace(-2, 2, 60), mix(look.hair, BLACK, 0.25)
        if look.back == "long":
            ends = [(1.1, low * 0.8), (0.9, low), (-0.9, low), (-1.1, low * 0.8)]
            crown = pen.head(turn, _strands(look, turn) + 0.02)
            pen.fill(np.concatenate([crown, np.array(ends) * (wide, 1)]), hair)
        elif look.back == "bun":
            pen.fill(_oval(0, -1.15, 0.32, 0.28), hair)
        for side in (-1, 1) if look.back == "puffs" else ():
            pen.fill(_oval(side * wide * 1.05, -0.55, 0.38, 0.38), hair)
    shade = mix(look.skin, DARK, 0.25)
    pen.fill(np.array([(-0.55, 0.5), (0.55, 0.5), (0.55, 1.6), (-0.55, 1.6)]) * (wide, 1), shade)
    pen.fill(_oval(0, 2.5, 1.9, 1.25), look.clothes)
    pen.fill(_oval(0, 1.3, wide * 0.55, 0.16), shade)
    for side in (-1, 1):
        x = side * wide * 0.98 - pen.shot.yaw * 0.2
        pen.fill(_oval(x, 0.08, look.ear * 0.7, look.ear * 1.2), mix(look.skin, DARK, 0.08))
        pen.fill(_oval(x, 0.1, look.ear * 0.35, look.ear * 0.7), shade)


def _draw_head(pen: _Pen, look: Look, face: Expression) -> None:
    pen.fill(pen.head(np.linspace(-np.pi, np.pi, 64)), look.skin)
    rim = pen.head(np.linspace(0, np.pi, 32)) * (-np.sign(pen.shot.light[0]), 1)
    for share in np.linspace(0.7, 0.95, 6):
        pen.fill(np.concatenate([rim, (rim * (share, 1))[::-1]]), DARK, 10)
    cheek, lines, fold = look.eye_y + 0.38, mix(look.skin, DARK, 0.6), np.linspace(0, 1, 12)
    for side in (-1, 1):
        blush = _oval(side * look.width * 0.58, cheek, 0.17, 0.12)
        pen.fill(blush, (225, 80, 80), max(0, look.blush))
        x = side * (look.nose_width + 0.08 + 0.13 * np.sin(fold * 2))
        smile = _points(x, look.nose_y + 0.22 * fold)
        pen.stroke(smile, 0.03, lines, max(0, look.age, face.cheeks), 2)
        bag = _bow(side * look.eye_x, look.eye_y + look.eye_size, 0.13, 0.04)
        pen.stroke(bag, 0.025, DARK, max(0, look.age), 2)
        frown = _points(side * (0.05 + 0.1 * (fold - 0.6) ** 2), look.eye_y - 0.28 + 0.15 * fold)
        pen.stroke(frown, 0.035, DARK, face.frown, 2)
    for x, y in look.freckles * (look.width * 0.6, 0.12) + (0, cheek - 0.08):
        pen.fill(_oval(x, y, 0.02, 0.02), mix(look.skin, (110, 50, 20), 0.5))


def _draw_eyes(pen: _Pen, look: Look, face: Expression) -> None:
    wide, high, lash = look.eye_size, look.eye_size * look.eye_shape, mix(look.skin, BLACK, 0.75)
    arch = high * np.sqrt(1 - LINE**2)
    for side in (-1, 1):
        x = side * look.eye_x
        # `side * LINE` is 1 at the outer corner.
        upper = high * (2 * face.upper_lid - 1 - face.lid_slant * side * LINE)
        lower = high * (1 - 2 * face.lower_lid * (1.2 - LINE**2 * 0.4))
        top = np.clip(upper, -arch, arch)
        bottom = np.maximum(np.minimum(arch, lower), top)
        if face.closed:
            top = bottom = np.copysign(0.5 * high, -face.curve) * (1 - LINE**2) + 0.1 * high
        eye = _Opening(x + wide * LINE, look.eye_y + top, look.eye_y + bottom)
        y, iris = look.eye_y + face.gaze * high * 0.35 + 0.02, high * look.iris_size
        pen.fill(eye.outline(), TOOTH)
        pen.fill(eye.cut(_oval(x, y, iris, iris)), look.iris)
        pen.fill(eye.cut(_oval(x, y, iris * 0.55, iris * 0.55)), DARK)
        pen.fill(eye.cut(_oval(x + iris * 0.35, y - iris * 0.35, iris * 0.25, iris * 0.25)), WHITE)
        pen.stroke(_points(eye.x, eye.top), 0.05, lash)
        pen.stroke(_points(eye.x, eye.bottom), 0.02, lash, 150)
        if look.lashes:
            corner = np.array([x + side * wide * 0.85, eye.top[-3 * side] - 0.01])
            pen.stroke(corner + np.linspace(0, 1, 5)[:, None] * (side * 0.09, -0.07), 0.04, lash)
        if face.tear and side == look.side:
            pen.fill(_oval(x + 0.02, look.eye_y + high + 0.17, 0.05, 0.09), (150, 205, 245), 220)


def _draw_brows(pen: _Pen, look: Look, face: Expression) -> None:
    colour = mix(look.hair, BLACK, 0.3)
    if abs(sum(colour) - sum(look.skin)) < 150:
        colour = mix(colour, BLACK, 0.65)
    base = look.eye_y - look.eye_size * look.eye_shape - look.brow_gap - face.brow_raise
    for side in (-1, 1):
        brow = _bow(side * look.eye_x, base, 0.2, -look.brow_arch)
        brow[:, 1] -= 0.2 * (face.brow_tilt + look.brow_tilt) * side * LINE
        pen.stroke(brow, look.brow_width, colour, 255, 4)


def _draw_nose(pen: _Pen, look: Look) -> None:
    shade, wide, y = mix(look.skin, DARK, 0.45), look.nose_width, look.nose_y
    if look.nose == "button":
        pen.fill(_oval(0, y - 0.02, wide, wide * 0.8), mix(look.skin, (220, 90, 80), 0.25))
        pen.fill(_oval(-wide * 0.3, y - 0.06, wide * 0.3, wide * 0.2), WHITE, 90)
    elif look.nose == "hook":
        ridge = np.array([(0, -0.26), (0.02, -0.12), (wide, -0.02), (wide * 0.6, 0.03), (0, 0.02)])
        pen.stroke(ridge * (look.side, 1) + (0, y), 0.04, shade)
    else:
        pen.stroke(_bow(0, y - wide * 0.5, wide * 1.1, wide * 0.5), 0.04, shade)
        for side in (-1, 1) if look.nose == "broad" else ():
            pen.fill(_oval(side * wide * 0.6, y - 0.03, 0.035, 0.025), mix(look.skin, DARK, 0.8))


def _draw_mouth(pen: _Pen, look: Look, face: Expression) -> None:
    mild, strong, below, square, wide, teeth = MOUTHS[face.mouth]
    x = LINE * look.mouth_width * face.width * wide
    middle = look.mouth_y + face.curve * (0.5 - LINE**2) + look.mouth_skew * LINE
    most = mild + (strong - mild) * face.open
    gap = most * (1 - np.abs(LINE) ** square)
    mouth = _Opening(x, middle - gap * (1 - below), middle + gap * below)
    lips = mix(look.skin, (180, 50, 62), look.lip_red)
    pen.fill(mouth.outline(look.lip, look.lip * 1.3), lips)
    if most:
        pen.fill(mouth.outline(), (84, 22, 30))
        tongue = _oval(0, look.mouth_y + most * 0.9, x[-1] * 0.6, most * 0.45)
        pen.fill(mouth.cut(tongue), (206, 88, 96))
        pen.fill(_Opening(x, mouth.top, mouth.top + gap * teeth).outline(), TOOTH)
        pen.stroke(_points(x, mouth.bottom), 0.03, DARK)
    for tooth in x[4:-4:5] if face.mouth == "clenched" else ():
        pen.stroke(mouth.cut(_points(tooth, np.array([-1.0, 1.0]))), 0.02, DARK, 130, 60)
    if face.mouth == "clenched":
        pen.stroke(_points(x, middle), 0.02, DARK, 170)
    pen.stroke(_points(x, mouth.top), 0.03 if most else 0.05, mix(lips, DARK, 0.8))


def _draw_beard(pen: _Pen, look: Look) -> None:
    colour = mix(look.hair, BLACK, 0.15)
    if look.beard in ("full", "stubble"):
        full = look.beard == "full"
        right = pen.head(np.linspace(1.65, np.pi, 20), 1.04 if full else 1)
        edge = _points(right[0, 0] * -LINE, 0.36 - 0.28 * LINE**6 + 0.03 * np.cos(9 * LINE))
        pen.fill(np.concatenate([edge, right * (-1, 1), right[::-1]]), colour, 255 if full else 45)
    if look.beard == "goatee":
        pen.fill(_oval(0, 0.86, 0.2, 0.2), colour)
    if look.beard in ("full", "moustache", "goatee"):
        pen.stroke(_bow(0, 0.4, look.mouth_width * 0.65, -0.03), 0.08, colour, 255, 3)


def _draw_hair(pen: _Pen, look: Look) -> None:
    if look.hairline == "bald" or look.hat == "hood":
        return
    turn = np.linspace(-1.55, 1.55, 60)
    form = {
        "straight": -0.62 + 0 * LINE,
        "fringe": -0.52 + 0.04 * np.abs(np.sin(9 * LINE)),
        "parting": -0.74 + 0.22 * np.abs(LINE - look.side * 0.4) ** 1.2,
        "peak": -0.64 - 0.14 * np.sin(np.pi * np.abs(LINE)),
        "receding": -0.86 + 0 * LINE,
    }
    y = form[look.hairline] * (1 - LINE**8) - 0.02
    edge = _points(LINE * pen.half_width(y), y)[::-1]
    pen.fill(np.concatenate([pen.head(turn, _strands(look, turn)), edge]), look.hair)


def _draw_hat(pen: _Pen, look: Look) -> None:
    dark = mix(look.hat_colour, BLACK, 0.3)
    turn = np.linspace(-1.05, 1.05, 40)
    if look.hat == "hood":
        turn = np.linspace(-np.pi, np.pi, 64)
        inner = pen.head(turn, 0.9)
        pen.fill(np.concatenate([pen.head(turn, 1.16), inner[::-1]]), look.hat_colour)
        pen.stroke(inner, 0.03, dark, 255, 60)
    elif look.hat == "beanie":
        pen.fill(_oval(0, -1.25, 0.2, 0.2), dark)
        pen.fill(pen.head(turn, 1.2), look.hat_colour)
        pen.stroke(_bow(0, -0.56, look.width * 1.02, -0.08), 0.22, dark, 255, 40)
    elif look.hat == "cap":
        pen.fill(pen.head(turn, 1.16), look.hat_colour)
        pen.stroke(_bow(look.side * 0.12, -0.52, look.width * 1.1, -0.12), 0.2, dark, 255, 4)


def _draw_glasses(pen: _Pen, look: Look) -> None:
    if look.glasses == "none":
        return
    y, colour, near = look.eye_y, look.glasses_colour, look.eye_x - 0.24
    pen.stroke(_bow(0, y, near, -0.02), 0.035, colour, 255, 200)
    for side in (-1, 1):
        rim = _oval(side * look.eye_x, y + 0.05, 0.24, 0.18, 1 if look.glasses == "round" else 0.45)
        pen.fill(rim, WHITE, 30)
        pen.stroke(rim, 0.035, colour, 255, 200)
        temple = np.array([(look.eye_x + 0.24, y), (pen.look.width, y - 0.03)]) * (side, 1)
        pen.stroke(temple, 0.035, colour, 255, 200)


def _draw_cover(pen: _Pen, look: Look) -> None:
    """Something in front of the face, small enough to leave the expression to be seen."""
    side, wide = look.side, look.width
    if look.cover == "hand":
        palm = np.array([side * (wide + 0.22), 0.86])
        for number, angle in enumerate((-1.9, -2.3, -2.7, -3.1)):
            tip = palm + 0.5 * np.array([-side * np.cos(angle + np.pi), np.sin(angle)])
            finger = palm + np.linspace(0, 1, 12)[:, None] * (tip - palm)
            pen.stroke(finger, 0.15, mix(look.skin, DARK, 0.2 - 0.05 * number), 255, 10)
        skin = mix(look.skin, DARK, 0.05)
        pen.fill(_oval(0, 0, 0.24, 0.26) + palm, skin)
        pen.stroke(palm + np.linspace(0, 1, 9)[:, None] * (0.1, 2), 0.36, skin)
    elif look.cover == "shawl":
        pen.stroke(_bow(0, 0.98, wide * 1.3, 0.14), 0.36, look.cover_colour, 255, 30)
    elif look.cover == "strap":
        strap = _points(side * wide * (0.75 + 0.7 * LINE), 5 * LINE)
        pen.stroke(strap, 0.16, look.cover_colour, 255, 200)


def _photograph(image: Image.Image, shot: Shot, rng: Generator) -> np.ndarray:
    """Light, lens and sensor."""
    size = image.width
    if shot.blur * size > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(shot.blur * size))
    across = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + shot.light[0] * across[None, :] + shot.light[1] * across[:, None]
    pixels = np.asarray(image, np.float32) * shot.gain * light[..., None]
    pixels = (pixels - 128) * shot.contrast + 128 + rng.normal(0, shot.noise, (size, size, 3))
    if shot.grey:
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, 2)
    return np.clip(pixels, 0, 255).astype(np.uint8)
