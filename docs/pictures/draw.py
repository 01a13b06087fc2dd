"""Draws `faces.png`: python docs/pictures/draw.py."""

from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.data.faces import EXPRESSIONS, draw_face

SIDE, COLUMNS = 96, 10

rows = [
    np.concatenate(
        [draw_face(name, SIDE, np.random.default_rng([7, index, at])) for at in range(COLUMNS)], 1
    )
    for index, name in enumerate(EXPRESSIONS)
]
sheet = Image.fromarray(np.concatenate(rows)).quantize(200)
sheet.save(Path(__file__).with_name("faces.png"), optimize=True)
