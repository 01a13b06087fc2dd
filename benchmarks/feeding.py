"""Feeding, side by side: pictures to the model in vitreous and the usual way.

    python benchmarks/feeding.py --install               # the peers, in an environment of their own
    python benchmarks/feeding.py --out benchmarks/results/DATE_feeding
    python benchmarks/feeding.py --quick --json FILE

All pictures are drawn: faces as 48 px PNGs, as JPEGs of 500x375 and of 12 megapixels. The first row
has ours on both sides: whole training steps on pictures as they come, and on a batch that lies
ready. In the other rows there is no model.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from speed_pairs import (
    Worker,
    left_out_if_ended,
    left_out_lines,
    machine,
    read_command,
    row,
    table,
    take_turns,
    write_results,
)

from vitreous.data.faces import EXPRESSIONS, draw_face, write_faces


@dataclass(frozen=True)
class Work:
    """What is fed from which of the drawn folders, at which size."""

    title: str
    what: str
    pictures: str
    side: int
    peer_name: str = "Pillow + DataLoader"


ALL = (
    Work("training step of the 48 px model", "training", "small", 48, "a batch that lies ready"),
    Work("epoch of 48 px PNGs, augmented", "epochs", "small", 48),
    Work("epoch of 500x375 JPEGs at 96 px, augmented", "epochs", "photos", 96),
    Work("500x375 JPEGs decoded to 224 px", "photos", "photos", 224),
    Work("12 megapixel JPEGs decoded to 224 px", "photos", "large", 224),
)


def draw(folder: Path, quick: bool) -> None:
    """The three folders of drawn pictures."""
    write_faces(folder / "small", 200 if quick else 1000, size=48, seed=0)
    draw_photos(folder / "photos", 60 if quick else 300, (500, 375))
    draw_photos(folder / "large", 2 if quick else 6, (4000, 3000))


def draw_photos(folder: Path, per_class: int, size: tuple[int, int]) -> None:
    """Faces with grain, as JPEGs of (width, height)."""
    rng = np.random.default_rng(0)
    for name in EXPRESSIONS:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            face = Image.fromarray(draw_face(name, 96, rng)).resize(size)
            grain = rng.normal(0, 4, (size[1], size[0], 1)).astype(np.float32)
            pixels = (np.asarray(face) + grain).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg", quality=90)


def compare(
    works: Sequence[Work], folder: Path, pairs: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and those that were left out."""
    rows, left_out = [], []
    for work in works:
        settings = {
            "what": work.what, "pictures": str(folder / work.pictures), "side": work.side,
        }  # fmt: skip
        ours = Worker("feeding_ours.py", settings, is_peer=False)
        peer = Worker("feeding_peer.py", settings, is_peer=True)
        if work.what == "training":
            peer = Worker("feeding_ours.py", {**settings, "what": "fixed"}, is_peer=False)
        with left_out_if_ended(work.title, left_out):
            rows.append(row(work.title, work.peer_name, take_turns(ours, peer, pairs)))
            print(f"{work.title}: {rows[-1]['ours']:g} and {rows[-1]['peer']:g} pictures a second, "
                  f"{rows[-1]['ratio']:.2f} times", flush=True)  # fmt: skip
    return rows, left_out


def page(rows: Sequence[dict[str, Any]], left_out: Sequence[str], pairs: int, quick: bool) -> str:
    how = "--quick" if quick else f"--pairs {pairs}"
    lines = [
        "# Feeding, side by side",
        "",
        f"`python benchmarks/feeding.py --out DIR {how}`; medians of {pairs} alternating pairs; "
        f"{machine()}.",
        "",
        *table(rows),
        "",
        *left_out_lines(left_out),
    ]
    return "\n".join(lines)


def main() -> None:
    arguments = read_command("fewer pictures", [one.title for one in ALL])
    works = [one for one in ALL if arguments.only in one.title]
    with tempfile.TemporaryDirectory() as name:
        draw(Path(name), arguments.quick)
        rows, left_out = compare(works, Path(name), arguments.pairs)
    text = page(rows, left_out, arguments.pairs, arguments.quick)
    write_results(arguments, "feeding", rows, text)


if __name__ == "__main__":
    main()
