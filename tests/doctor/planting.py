"""Faults to plant among drawn faces, one of each sort."""

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vitreous.doctor.findings import Checkup

SIDE = 64


def folder_hash(folder: Path) -> str:
    """Of every name, time and byte below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path.relative_to(folder)} {status.st_mtime_ns} {status.st_mode}".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def compressed(image: Image.Image, quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def cropped(image: Image.Image) -> Image.Image:
    cut = round(0.05 * image.width)
    return image.crop((cut, cut, image.width - cut, image.height - cut))


#: What may be done to a picture so that it is nearly the same.
ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda image: image.resize((SIDE // 2, SIDE // 2)),
    "double": lambda image: image.resize((2 * SIDE, 2 * SIDE)),
    "quality 60": compressed,
    "cropped": cropped,
    "corner": lambda image: image.crop((3, 0, SIDE, SIDE - 3)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "mirrored": ImageOps.mirror,
    "all at once": lambda image: compressed(cropped(ImageOps.mirror(image)), 80),
}


@dataclass
class Sick:
    """A folder with faults, what was planted, and what was found."""

    folder: Path
    planted: dict[str, tuple[str, tuple[Path, ...]]] = field(default_factory=dict)
    checkup: Checkup | None = None

    def __post_init__(self) -> None:
        self._next = 0

    def take(self, split: str = "train", label: str = "happy") -> Path:
        self._next += 1
        return self.folder / split / label / f"{self._next:05}.png"


def spoil_files(case: Sick) -> None:
    def plant(name: str, kind: str, path: Path) -> None:
        case.planted[name] = kind, (path,)

    def save(
        name: str,
        kind: str,
        make: Callable[[Image.Image], Image.Image],
        suffix: str,
        **options: object,
    ) -> None:
        path = case.take()
        image = make(opened(path))
        path.unlink()
        image.save(path.with_suffix(suffix), **options)
        plant(name, kind, path.with_suffix(suffix))

    def write(name: str, kind: str, content: bytes, suffix: str = ".png") -> None:
        path = case.take()
        path.unlink()
        path.with_suffix(suffix).write_bytes(content)
        plant(name, kind, path.with_suffix(suffix))

    picture = opened(case.folder / "valid" / "happy" / "00049.png")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    jpeg, png = buffer.getvalue(), (case.folder / "train" / "sad" / "00049.png").read_bytes()
    noise = np.random.default_rng(0).bytes(3000)
    write("garbled", "unreadable", jpeg[:4] + noise, ".jpg")
    write("noise", "unreadable", noise)
    write("HEIC", "unreadable", b"\0\0\0\x18ftypheic" + noise, ".jpg")
    write("PNG cut off", "truncated", png[: len(png) // 2])
    write("JPEG cut off", "truncated", jpeg[: len(jpeg) // 2], ".jpg")
    write("empty", "empty", b"")
    write("text", "not_a_picture", b"The picture was removed.\n" * 9)
    write("page", "not_a_picture", b"\n<!DOCTYPE html><html>404</html>", ".jpg")
    write("PDF", "not_a_picture", b"%PDF-1.7\n" + noise, ".jpg")
    path = case.take()
    path.rename(path.with_suffix(".jpg"))
    plant("PNG named .jpg", "wrong_extension", path.with_suffix(".jpg"))
    grey = np.random.default_rng(1).normal(90, 1, (SIDE, SIDE, 3)).astype(np.uint8)
    save("tiny", "tiny", lambda image: image.resize((9, 9)), ".png")
    save("blank", "blank", lambda image: Image.fromarray(grey), ".png")
    film = {"save_all": True, "append_images": [ImageOps.flip(picture)]}
    save("film", "animated", lambda image: image, ".gif", **film)
    save("ink", "odd_mode", lambda image: image.convert("CMYK"), ".jpg")
    save("glass", "odd_mode", _see_through, ".png")
    save("16 bits", "odd_mode", _deep, ".png")
    save("long", "odd_size", lambda image: image.resize((400, SIDE)), ".png")


def _deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def _see_through(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def copy_pictures(case: Sick) -> None:
    def plant(name: str, kind: str, path: Path, copy: Path) -> None:
        case.planted[name] = kind, (path, copy)

    path = case.take()
    shutil.copy(path, path.with_name("again.png"))
    plant("copied", "duplicate", path, path.with_name("again.png"))
    path = case.take()
    opened(path).save(path.with_suffix(".bmp"))
    plant("saved as BMP", "duplicate", path, path.with_suffix(".bmp"))
    for name, alter in ALTERED.items():
        path = case.take()
        alter(opened(path)).save(path.with_name(f"{path.stem} {name}.jpg"), quality=92)
        plant(name, "near_duplicate", path, path.with_name(f"{path.stem} {name}.jpg"))
    for kind, split, label in (("leak", "valid", "happy"), ("label_conflict", "train", "sad")):
        for name, alter in (("same", lambda image: image), ("altered", ALTERED["all at once"])):
            path = case.take()
            copy = case.folder / split / label / f"{kind} {name}.png"
            alter(opened(path)).save(copy)
            plant(f"{kind}, {name}", kind, path, copy)


def name_groups(case: Sick) -> None:
    first, second = case.take(), case.take("valid")
    names = first.with_name("anna_003.png"), second.with_name("anna_007.png")
    first.rename(names[0])
    second.rename(names[1])
    case.planted["names"] = "group_leak", names


def leave_behind(case: Sick) -> None:
    (case.folder / "train" / "happy" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    path = case.take()
    path.rename(path.with_suffix(".download"))
    case.planted["passed over"] = "ignored", (path.with_suffix(".download"),)
    photograph = case.folder / "train" / "happy" / "IMG_0001.HEIC"
    photograph.write_bytes(b"\0\0\0\x18ftypheic")
    case.planted["not read"] = "ignored", (photograph,)
