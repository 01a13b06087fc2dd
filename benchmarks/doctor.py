"""The data doctor: how many planted faults it finds, what it says of a healthy folder, how fast.

    python benchmarks/doctor.py FOLDER --out benchmarks/results/DATE_doctor

The folder has classes below `train` and a second split. It is checked as it is; then faults are
planted into a temporary copy, each into pictures of its own that were not complained of, and the
copy is checked. A fault counts as found where a finding of its kind names all its files. All
pictures that an error or a warning names in the untouched folder count as alarms, true or false:
look at its page to tell them apart.
"""

import argparse
import hashlib
import io
import os
import platform
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import vitreous
from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.data.folder import list_labelled
from vitreous.data.table import Sample


@dataclass(frozen=True)
class Fault:
    """Something planted.

    Args:
        kind: of the finding that it has to give.
        how: in a few words.
        files: that the finding has to name.
    """

    kind: str
    how: str
    files: tuple[Path, ...]


def cropped(image: Image.Image, share: float = 0.05) -> Image.Image:
    width, height = image.size
    left, top = round(share * width), round(share * height)
    return image.crop((left, top, width - left, height - top))


def compressed(image: Image.Image, quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


#: What is done to a picture so that it is nearly the same.
ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((2 * image.width, 2 * image.height)),
    "JPEG of quality 60": compressed,
    "5 % cropped at each edge": cropped,
    "5 % cropped at one corner": lambda image: image.crop(
        (round(0.05 * image.width), round(0.05 * image.height), image.width, image.height)
    ),
    "30 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "30 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "mirrored": ImageOps.mirror,
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored, cropped and compressed": lambda image: compressed(cropped(ImageOps.mirror(image))),
}


def garbled(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes()[:3] + rng.bytes(3000))


def cut_off(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * rng.uniform(0.3, 0.95))])


def in_words(path: Path, rng: np.random.Generator) -> None:
    html = "<!DOCTYPE html>\n<html><body>404 not found</body></html>\n"
    path.write_text(html if rng.random() < 0.5 else "the picture was removed\n" * 20)


def one_colour(path: Path, rng: np.random.Generator) -> None:
    size = Image.open(path).size
    noise = rng.normal(rng.uniform(0, 255), 1.0, (size[1], size[0], 1)).repeat(3, 2)
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)


def shrunk(path: Path, rng: np.random.Generator) -> None:
    side = int(rng.integers(4, 13))
    opened(path).resize((side, side)).save(path)


def stretched(path: Path, rng: np.random.Generator) -> None:
    image = opened(path)
    image.resize((image.width * 6, image.height)).save(path)


#: What is done to a file in its place, by kind.
IN_PLACE: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "unreadable": garbled,
    "truncated": cut_off,
    "empty": lambda path, rng: path.write_bytes(b"") and None,
    "not_a_picture": in_words,
    "blank": one_colour,
    "tiny": shrunk,
    "odd_size": stretched,
}


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}")


class Planter:
    """Plants faults into a copy of a folder, each into pictures of its own.

    Args:
        samples: the pictures that nothing is wrong with.
        rng: chooses pictures and degrees.
    """

    def __init__(self, samples: Sequence[Sample], rng: np.random.Generator) -> None:
        order = rng.permutation(len(samples))
        self.rng, self._left = rng, [samples[row] for row in order]

    def take(self, split: str | None = None) -> Sample:
        place = next(at for at, one in enumerate(self._left) if split in (None, one.split))
        return self._left.pop(place)

    def plant(self, each: int) -> Iterator[Fault]:
        """So many faults of each kind, and of each alteration."""
        for _ in range(each):
            for kind, damage in IN_PLACE.items():
                path = self.take().path
                damage(path, self.rng)
                yield Fault(kind, damage.__name__.strip("<>"), (path,))
            yield self._wrong_extension()
            yield self._animated()
            yield from self._odd_modes()
            yield self._duplicate()
            yield from self._elsewhere()
            yield self._named_group()
        for how, alter in ALTERED.items():
            for _ in range(max(1, each // 2)):
                path = self.take().path
                yield Fault("near_duplicate", how, (path, self._altered(path, path, alter)))

    def _altered(
        self, path: Path, place: Path, alter: Callable[[Image.Image], Image.Image]
    ) -> Path:
        copy = beside(place, "altered.jpg")
        alter(opened(path)).save(copy, quality=90)
        return copy

    def _wrong_extension(self) -> Fault:
        path = self.take().path
        named = path.with_suffix(".jpg" if path.suffix == ".png" else ".png")
        path.rename(named)
        return Fault("wrong_extension", "renamed", (named,))

    def _animated(self) -> Fault:
        path = self.take().path
        film = beside(path, "film.gif")
        first = opened(path)
        first.save(film, save_all=True, append_images=[ImageOps.mirror(first)])
        path.unlink()
        return Fault("animated", "a film of two frames", (film,))

    def _odd_modes(self) -> Iterator[Fault]:
        path = self.take().path
        inked = beside(path, "inked.jpg")
        opened(path).convert("CMYK").save(inked)
        path.unlink()
        yield Fault("odd_mode", "CMYK", (inked,))
        path = self.take().path
        deep = beside(path, "deep.png")
        grey = np.asarray(opened(path).convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(deep)
        path.unlink()
        yield Fault("odd_mode", "16 bits", (deep,))

    def _duplicate(self) -> Fault:
        path = self.take().path
        copy = beside(path, "copy.png")
        opened(path).save(copy)
        return Fault("duplicate", "the same pixels as PNG", (path, copy))

    def _elsewhere(self) -> Iterator[Fault]:
        """Copies, exact and altered, in the other split and under another class."""
        alterations = list(ALTERED.values())
        for exact in (True, False):
            one = self.take("train")
            other = self.take("valid")
            place = other.path.parents[1] / one.path.parent.name / one.path.name
            yield Fault("leak", "exact" if exact else "altered", (
                one.path, self._copied(one.path, place, exact, alterations),
            ))  # fmt: skip
            one = self.take("train")
            label = self.rng.choice(sorted({s.label for s in self._left} - {one.label}))
            place = one.path.parents[1] / label / one.path.name
            yield Fault("label_conflict", "exact" if exact else "altered", (
                one.path, self._copied(one.path, place, exact, alterations),
            ))  # fmt: skip

    def _copied(self, path: Path, place: Path, exact: bool, alterations: list) -> Path:
        if not exact:
            alter = alterations[int(self.rng.integers(len(alterations)))]
            return self._altered(path, place, alter)
        place = beside(place, f"again{path.suffix}")
        shutil.copy(path, place)
        return place

    def _named_group(self) -> Fault:
        name = f"person{''.join(self.rng.choice(list('abcdefgh'), 6))}"
        files = []
        for number, split in enumerate(("train", "valid")):
            path = self.take(split).path
            files.append(path.with_name(f"{name}_{number:03}{path.suffix}"))
            path.rename(files[-1])
        return Fault("group_leak", "by name", tuple(files))


def folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)} {path.lstat().st_mtime_ns}\n".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def is_found(fault: Fault, checkup: Any) -> bool:
    return any(
        finding.kind == fault.kind and set(fault.files) <= set(finding.files)
        for finding in checkup.findings
    )


def measure(folder: Path, each: int, seed: int) -> dict[str, Any]:
    """Check the folder, then a copy with faults."""
    before = folder_hash(folder)
    started = time.perf_counter()
    untouched = vitreous.check(folder, console=Console(quiet=True))
    seconds = time.perf_counter() - started
    bad = [finding for finding in untouched.findings if finding.severity != "note"]
    alarmed = {path for finding in bad for path in finding.files}
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / folder.name
        shutil.copytree(folder, copy)
        known = {path.relative_to(folder) for path in alarmed}
        samples = [
            sample
            for sample in list_labelled(copy).samples
            if sample.path.relative_to(copy) not in known
        ]
        faults = list(Planter(samples, np.random.default_rng(seed)).plant(each))
        planted = vitreous.check(copy, console=Console(quiet=True))
        missed = [fault for fault in faults if not is_found(fault, planted)]
    kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for fault in faults:
        kinds[fault.kind][0] += 1
        kinds[fault.kind][1] += fault not in missed
    count = sum(untouched.pictures.values())
    return {
        "folder": folder.name,
        "pictures": count,
        "seconds": round(seconds, 1),
        "seconds_per_10000": round(seconds * 10_000 / count, 1),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "faults": len(faults),
        "found": len(faults) - len(missed),
        "kinds": {kind: {"planted": total, "found": hit} for kind, (total, hit) in kinds.items()},
        "missed": [f"{fault.kind}: {fault.how}" for fault in missed],
        "alarmed_pictures": len(alarmed),
        "alarms": dict(Counter(finding.kind for finding in bad)),
        "folder_unchanged": folder_hash(folder) == before,
    }


def page(result: dict[str, Any], command: str) -> str:
    share = 100 * result["alarmed_pictures"] / result["pictures"]
    alarms = ", ".join(f"{count} {kind}" for kind, count in result["alarms"].items()) or "none"
    return "\n".join(
        [
            "# The data doctor",
            "",
            f"`{command}`; {platform.machine()}, {result['threads']} threads.",
            "",
            f"{result['folder']}, {result['pictures']:,} pictures: {result['found']} of "
            f"{result['faults']} planted faults found; {result['seconds']} s, "
            f"{result['seconds_per_10000']} s for 10,000 pictures. In the untouched folder errors "
            f"and warnings name {result['alarmed_pictures']} pictures, {share:.2f} % ({alarms}). "
            f"The folder is {'unchanged' if result['folder_unchanged'] else 'CHANGED'}.",
            "",
            "| kind | planted | found |",
            "| --- | --- | --- |",
            *(
                f"| {kind} | {counts['planted']} | {counts['found']} |"
                for kind, counts in result["kinds"].items()
            ),
            "",
            *(f"- missed: {text}" for text in result["missed"]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of classes below train and valid")
    parser.add_argument("--each", type=int, default=10, help="faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--out", type=Path, help="folder for table and figures")
    arguments = parser.parse_args()
    result = measure(arguments.folder, arguments.each, arguments.seed)
    command = f"python benchmarks/doctor.py FOLDER --each {arguments.each} --seed {arguments.seed}"
    text = page(result, command)
    print(text)
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "doctor.json", result)
        write_text(arguments.out / "README.md", text.rstrip() + "\n")


if __name__ == "__main__":
    main()
