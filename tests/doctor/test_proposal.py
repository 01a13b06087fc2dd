"""What is proposed to be changed, and what is not because it may be meant."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.doctor.planting import opened
from vitreous.data.faces import write_faces
from vitreous.doctor import copies
from vitreous.doctor.checkup import check_source
from vitreous.doctor.classes import plain_name
from vitreous.doctor.findings import Checkup, Finding


def found(checkup: Checkup, kind: str) -> list[Finding]:
    return [finding for finding in checkup.findings if finding.kind == kind]


def proposed(checkup: Checkup, action: str) -> dict[str, str]:
    return {change.path: change.value for change in checkup.proposal if change.action == action}


@pytest.mark.parametrize(
    ("one", "other"),
    [("-1", "1"), ("1-1", "11"), ("10-19", "1019"), ("A", "a"), ("AB-", "AB"), ("A-", "A"),
     ("_x", "x"), ("class 1", "class1"), ("²", "2")],
)  # fmt: skip
def test_names_that_differ_in_more_than_their_spelling(tmp_path, one, other):
    assert plain_name(one) != plain_name(other)
    write_faces(tmp_path / "faces", {"happy": 3, "sad": 3}, size=16)
    table = tmp_path / "table.csv"
    names = {"happy": one, "sad": other}
    rows = [f"{path},{names[path.parent.name]}" for path in (tmp_path / "faces").rglob("*.png")]
    table.write_text("\n".join(["path,label", *rows]))
    checkup = check_source(table)
    assert not found(checkup, "class_names")
    assert not checkup.proposal


@pytest.mark.parametrize(
    ("one", "other"),
    [("happy", "Happy"), ("happy face", "Happy_Face"), ("happy-face", "happyface"),
     ("Sad ", "sad"), ("class-1", "Class-1"), ("groß", "GROSS"), ("a--b", "a-b")],
)  # fmt: skip
def test_names_that_are_spelled_in_two_ways(one, other):
    assert plain_name(one) == plain_name(other)


def _grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (ImageOps.mirror, "mirrored; the classes may differ in just that"),
        (_grey, "in other colours; the classes may differ in just that"),
        (lambda image: image.resize((96, 96)), "nearly the same picture, 64 x 64 and 96 x 96"),
    ],
)
def test_altered_copies_may_be_what_makes_two_classes(tmp_path, alter, words):
    folder = tmp_path / "faces"
    for path in write_faces(tmp_path / "drawn", {"happy": 6}, size=64):
        for name, made in (("left", opened(path)), ("right", alter(opened(path)))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            made.save(folder / name / f"{path.stem}{name}.png")
    checkup = check_source(folder)
    conflicts = found(checkup, "label_conflict")
    assert len(conflicts) == 6
    for conflict in conflicts:
        assert conflict.severity == "warning"
        assert conflict.detail.startswith("as 'left' and 'right': nearly the same picture")
        assert conflict.detail.endswith(words)
    assert not proposed(checkup, "drop")
    # But a split must not part them.
    groups = proposed(checkup, "group")
    assert (len(groups), set(Counter(groups.values()).values())) == (12, {2})


def test_an_exact_conflict_among_altered_copies_is_still_an_error(tmp_path):
    folder = write_faces(tmp_path / "faces", 6, size=64)[0].parents[1]
    shutil.copy(folder / "happy" / "00000.png", folder / "sad" / "same.png")
    ImageOps.mirror(opened(folder / "happy" / "00000.png")).save(folder / "sad" / "turned.png")
    checkup = check_source(folder)
    error, warning = found(checkup, "label_conflict")
    assert (error.severity, warning.severity) == ("error", "warning")
    assert [path.name for path in error.files] == ["00000.png", "same.png"]
    assert error.detail == "as 'happy' and 'sad': the same pixels"
    assert {path.name for path in warning.files} == {"00000.png", "same.png", "turned.png"}
    assert set(proposed(checkup, "drop")) == {"happy/00000.png", "sad/same.png"}


def test_a_copy_of_every_picture_stays_where_one_can(tmp_path):
    write_faces(tmp_path / "train", 8, size=48)
    write_faces(tmp_path / "test", 8, size=48, seed=1)
    face = tmp_path / "train" / "happy" / "00000.png"
    shutil.copy(face, face.with_name("again.png"))
    shutil.copy(face, tmp_path / "test" / "sad" / "wrong.png")
    # What the majority contradicts goes, and training keeps its own: the test has none any more.
    assert set(proposed(check_source(tmp_path), "drop")) == {
        "test/sad/wrong.png", "train/happy/again.png"
    }  # fmt: skip


def test_two_spellings_of_a_class_are_no_contradiction(tmp_path):
    write_faces(tmp_path, {"happy": 8, "sad": 6}, size=48)
    (tmp_path / "Happy").mkdir()
    for number in range(3):
        face = tmp_path / "happy" / f"0000{number}.png"
        face.rename(tmp_path / "Happy" / face.name)
    shutil.copy(tmp_path / "happy" / "00005.png", tmp_path / "Happy" / "same.png")
    checkup = check_source(tmp_path)
    assert [one.severity for one in found(checkup, "label_conflict")] == ["error"]
    assert not proposed(checkup, "drop")
    assert proposed(checkup, "relabel") == dict.fromkeys(
        ("Happy/00000.png", "Happy/00001.png", "Happy/00002.png", "Happy/same.png"), "happy"
    )


def test_training_parts_what_it_learns_from_where_nothing_is_for_validation(tmp_path):
    for seed, split in enumerate(("train", "test")):
        write_faces(tmp_path / split, 12, size=48, seed=seed)
    for path in sorted((tmp_path / "train").rglob("0000[0-1].png")):
        path.rename(path.with_name(f"anna_{path.stem}.png"))
    for name in ("00005", "00006"):
        path = tmp_path / "test" / "sad" / f"{name}.png"
        path.rename(path.with_name(f"ben_{name}.png"))
    face = tmp_path / "train" / "sad" / "00004.png"
    ImageOps.mirror(opened(face)).save(face.with_name("turned.png"))
    groups = proposed(check_source(tmp_path), "group")
    assert {path: name for path, name in groups.items() if name == "anna"} == dict.fromkeys(
        [f"train/{label}/anna_0000{n}.png" for label in ("angry", "happy", "sad") for n in (0, 1)],
        "anna",
    )
    copied = {path for path, name in groups.items() if name.startswith("copies-")}
    assert copied == {"train/sad/00004.png", "train/sad/turned.png"}
    assert len(groups) == 8
    # With pictures for validation, names part nothing; folds would still part copies.
    write_faces(tmp_path / "valid", 12, size=48, seed=2)
    assert set(proposed(check_source(tmp_path), "group")) == copied


def _shrink(folder: Path, names: list[str]) -> None:
    for name in names:
        opened(folder / name).resize((12, 12)).save(folder / name)


@pytest.mark.parametrize(
    ("sizes", "tiny", "dropped"),
    [
        ({"happy": 60, "sad": 60}, 3, True),
        ({"happy": 60, "sad": 20}, 6, False),  # more than 5 % of all
        ({"happy": 80, "sad": 5}, 3, False),  # more than half of a class
    ],
)
def test_many_tiny_pictures_are_no_mistake(tmp_path, sizes, tiny, dropped):
    folder = write_faces(tmp_path / "faces", sizes, size=64)[0].parents[1]
    names = [f"sad/{number:05}.png" for number in range(tiny)]
    _shrink(folder, names)
    checkup = check_source(folder)
    findings = found(checkup, "tiny")
    assert len(findings) == tiny
    assert set(proposed(checkup, "drop")) == (set(names) if dropped else set())
    for finding in findings:
        assert finding.detail.endswith("; too many to be dropped unseen") != dropped


def test_a_class_that_is_all_in_the_test_too_is_not_dropped(tmp_path):
    write_faces(tmp_path / "train", 6, size=48)
    write_faces(tmp_path / "test", 6, size=48, seed=1)
    shutil.rmtree(tmp_path / "test" / "sad")
    shutil.copytree(tmp_path / "train" / "sad", tmp_path / "test" / "sad")
    shutil.copy(tmp_path / "train" / "happy" / "00000.png", tmp_path / "test" / "happy" / "x.png")
    checkup = check_source(tmp_path)
    assert set(proposed(checkup, "drop")) == {"train/happy/00000.png"}
    spared = [f.detail.endswith("; too many to be dropped unseen") for f in found(checkup, "leak")]
    assert Counter(spared) == {True: 6, False: 1}


def test_what_is_not_dropped_for_its_labels_may_still_be_a_leak(tmp_path):
    """Which label is right, a person says; that training has what the test has is sure."""
    for seed, (split, count) in enumerate({"train": 8, "test": 3}.items()):
        write_faces(tmp_path / split, {"happy": count, "sad": count}, size=48, seed=seed)
    learned = set()
    for number in range(2):  # most of the test's
        face = tmp_path / "test" / "sad" / f"0000{number}.png"
        shutil.copy(face, tmp_path / "test" / "happy" / f"again{number}.png")
        for label in ("happy", "sad"):
            name = f"train/{label}/again{number}.png"
            shutil.copy(face, tmp_path / name)
            learned.add(name)
    checkup = check_source(tmp_path)
    for kind, is_spared in (("label_conflict", True), ("leak", False)):
        findings = found(checkup, kind)
        assert len(findings) == 2
        for finding in findings:
            told = finding.detail.endswith("; too many to be dropped unseen")
            assert told == is_spared
    assert set(proposed(checkup, "drop")) == learned


def test_one_file_under_two_classes(tmp_path):
    """Its copy with one class alone is right by the majority, so that is what stays."""
    folder = write_faces(tmp_path / "faces", 4, size=32)[0].parents[1]
    rows = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    first, second = folder / "happy" / "00000.png", folder / "happy" / "00001.png"
    shutil.copy(second, folder / "happy" / "again.png")
    rows += [f"{first},sad", f"{second},sad", f"{folder / 'happy' / 'again.png'},happy"]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]))
    checkup = check_source(tmp_path / "table.csv")
    assert len(found(checkup, "label_conflict")) == 2
    assert set(proposed(checkup, "drop")) == {
        "faces/happy/00000.png", "faces/happy/00001.png"
    }  # fmt: skip


def test_a_folder_too_many_and_one_class(tmp_path):
    write_faces(tmp_path / "data" / "archive", 3, size=16)
    (tmp_path / "data" / "archive" / "README.md").touch()
    (finding,) = found(check_source(tmp_path / "data"), "too_little")
    assert finding.severity == "error"
    assert finding.detail == (
        "the single class 'archive': a classifier needs at least 2, one sub-folder each; it has "
        f"the folders 'angry', 'happy', 'sad': name {tmp_path / 'data' / 'archive'} instead"
    )
    write_faces(tmp_path / "one", {"happy": 3}, size=16)
    (finding,) = found(check_source(tmp_path / "one"), "too_little")
    assert finding.detail == (
        "the single class 'happy': a classifier needs at least 2, one sub-folder each"
    )


def test_nothing_to_learn_from_but_pictures_held_back(tmp_path):
    files = write_faces(tmp_path / "faces", 3, size=16)
    rows = [f"{path},{path.parent.name},test" for path in files]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    (finding,) = found(check_source(tmp_path / "table.csv"), "too_little")
    assert (finding.severity, finding.detail) == (
        "error", "no training pictures, only some held back"
    )  # fmt: skip


def test_sixteen_bits_of_which_the_upper_say_nothing_are_not_blank(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
        for number in range(6):
            depth = rng.integers(1000, 1900, (40, 40)).astype(np.uint16)
            Image.fromarray(depth).save(tmp_path / name / f"{number}.png")
    Image.new("L", (40, 40), 9).save(tmp_path / "far" / "blank.png")
    checkup = check_source(tmp_path)
    assert len(found(checkup, "narrow_range")) == 12
    assert [path.name for f in found(checkup, "blank") for path in f.files] == ["blank.png"]
    assert set(proposed(checkup, "drop")) == {"far/blank.png"}


def test_whole_pictures_are_read_again_only_for_a_jpeg_and_another(tmp_path, monkeypatch):
    """Others were never decoded smaller; and each is read once, whatever it is compared with."""
    read = Counter()

    def counting(path: Path) -> np.ndarray:
        read[path.name] += 1
        return original(path)

    original = copies.read_picture
    monkeypatch.setattr(copies, "read_picture", counting)
    folder = write_faces(tmp_path / "faces", 3, size=24)[0].parent
    size = (1100, 1030)
    large = opened(folder / "00000.png").resize(size, Image.Resampling.BICUBIC)
    large.save(folder / "a.webp", lossless=True)
    large.save(folder / "b.png")
    large.point(lambda value: value // 2 * 2).save(folder / "c.png")
    other = opened(folder / "00001.png").resize(size, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    other.save(folder / "d.jpg", quality=95, exif=exif)
    ImageOps.exif_transpose(Image.open(folder / "d.jpg")).save(folder / "e.png")
    opened(folder / "e.png").save(folder / "f.bmp")
    same = {frozenset(path.name for path in finding.files)
            for finding in found(check_source(folder.parent), "duplicate")}  # fmt: skip
    assert same == {frozenset(("a.webp", "b.png")), frozenset(("d.jpg", "e.png", "f.bmp"))}
    assert read == {"d.jpg": 1, "e.png": 1}
