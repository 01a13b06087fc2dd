import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.doctor.planting import ALTERED, folder_hash, opened
from vitreous.data.faces import write_faces
from vitreous.data.folder import survey
from vitreous.doctor import shortcuts
from vitreous.doctor.checkup import check_source
from vitreous.doctor.collection import Collection
from vitreous.doctor.examine import examine
from vitreous.doctor.findings import KINDS, SEVERITIES, Checkup
from vitreous.errors import DataError

PLANTED = (
    "garbled", "noise", "HEIC", "PNG cut off", "JPEG cut off", "empty", "text", "page", "PDF",
    "PNG named .jpg", "tiny", "blank", "film", "ink", "glass", "16 bits", "long", "copied",
    "saved as BMP", *ALTERED, "leak, same", "leak, altered", "label_conflict, same",
    "label_conflict, altered", "names", "passed over", "not read",
)  # fmt: skip


def kinds(checkup: Checkup) -> Counter[str]:
    return Counter(finding.kind for finding in checkup.findings)


def details(checkup: Checkup, kind: str) -> list[str]:
    return [finding.detail for finding in checkup.findings if finding.kind == kind]


def test_nothing_is_wrong_with_drawn_faces(healthy):
    before = folder_hash(healthy)
    checkup = check_source(healthy)
    assert checkup.findings == ()
    assert checkup.verdict == "Nothing found in 310 pictures."
    assert checkup.pictures == {"train": 160, "valid": 150}
    assert folder_hash(healthy) == before


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_fault_is_found(sick, name):
    kind, files = sick.planted[name]
    found = [finding for finding in sick.checkup.findings if finding.kind == kind]
    assert any(set(files) <= set(finding.files) for finding in found), name


def test_nothing_else_is_found(sick):
    """But that a copy is of another size, say, which is true of it too."""
    assert set(sick.planted) == set(PLANTED)
    planted = {path for _, files in sick.planted.values() for path in files}
    for finding in sick.checkup.findings:
        assert set(finding.files) <= planted or finding.kind == "ignored", finding
    expected = Counter(kind for kind, _ in sick.planted.values())
    found = kinds(sick.checkup)
    assert set(found) == set(expected)
    for kind in set(expected) - {"odd_mode", "odd_size", "wrong_extension", "ignored"}:
        assert found[kind] == expected[kind], details(sick.checkup, kind)


def test_the_worst_comes_first_and_every_kind_has_its_advice(sick):
    severities = [SEVERITIES.index(finding.severity) for finding in sick.checkup.findings]
    assert severities == sorted(severities)
    assert {finding.severity for finding in sick.checkup.findings} == set(SEVERITIES)
    for section in sick.checkup.sections:
        assert section.title == KINDS[section.kind].title
        assert section.advice


def test_what_a_file_browser_leaves_is_a_note(sick):
    notes = [finding for finding in sick.checkup.findings if finding.kind == "ignored"]
    assert [path.name for finding in notes if finding.severity == "note"
            for path in finding.files] == ["Thumbs.db"]  # fmt: skip
    assert [finding.severity for finding in notes] == ["warning", "warning", "note"]
    unread = [finding for finding in notes if finding.detail.endswith("a format that isn't read")]
    assert [[path.name for path in finding.files] for finding in unread] == [["IMG_0001.HEIC"]]


def test_as_json(sick):
    plain = json.loads(json.dumps(sick.checkup.to_json()))
    assert list(plain) == ["findings"]
    listed = {str(path) for path in sick.folder.rglob("*")}
    for finding in plain["findings"]:
        assert list(finding) == ["kind", "files", "detail", "severity"]
        assert finding["kind"] in KINDS
        assert finding["severity"] in SEVERITIES
        assert set(finding["files"]) <= listed


def test_of_copies_under_two_classes_a_majority_keeps_its_own(tmp_path):
    folder = write_faces(tmp_path / "faces", 4, size=32)[0].parents[1]
    shutil.copy(folder / "happy" / "00000.png", folder / "happy" / "more.png")
    shutil.copy(folder / "happy" / "00000.png", folder / "sad" / "wrong.png")
    shutil.copy(folder / "happy" / "00001.png", folder / "sad" / "tie.png")
    proposal = check_source(folder).proposal
    assert {change.action for change in proposal} == {"drop"}
    assert {change.path for change in proposal} == {
        "happy/more.png", "sad/wrong.png", "happy/00001.png", "sad/tie.png"
    }  # fmt: skip


def test_of_a_leak_the_last_split_keeps_its_copy(tmp_path):
    for seed, split in enumerate(("train", "valid", "test")):
        write_faces(tmp_path / split, 4, size=32, seed=seed)
    face = tmp_path / "valid" / "sad" / "00001.png"
    for split in ("train", "test"):
        shutil.copy(face, tmp_path / split / "sad" / "copy.png")
    checkup = check_source(tmp_path)
    assert details(checkup, "leak") == ["in train, valid and test: the same pixels"]
    assert {change.path for change in checkup.proposal} == {
        "train/sad/copy.png", "valid/sad/00001.png"
    }  # fmt: skip


def test_copies_that_no_split_parts_yet_become_a_group(tmp_path):
    folder = write_faces(tmp_path / "faces", 4, size=48)[0].parents[1]
    ALTERED["mirrored"](opened(folder / "sad" / "00002.png")).save(folder / "sad" / "x.png")
    proposal = check_source(folder).proposal
    assert [(change.path, change.action) for change in proposal] == [
        ("sad/00002.png", "group"), ("sad/x.png", "group")
    ]  # fmt: skip
    assert len({change.value for change in proposal}) == 1


def test_classes_written_in_two_ways_are_given_one_name(tmp_path):
    folder = write_faces(tmp_path / "faces", {"happy": 5, "sad": 3}, size=16)[0].parents[1]
    (folder / "sad").rename(folder / "Happy")
    proposal = check_source(folder).proposal
    assert [(change.path, change.action, change.value) for change in proposal] == [
        (f"Happy/0000{number}.png", "relabel", "happy") for number in range(3)
    ]


def test_a_table_with_groups_and_a_picture_listed_twice(tmp_path):
    write_faces(tmp_path / "faces", 12, size=32)
    files = sorted((tmp_path / "faces").rglob("*.png"))
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},train," for path in files]
    rows[0] += "anna"
    rows[30] = rows[30].replace(",train,", ",valid,anna")
    rows += [rows[5], "gone.png,happy,train,ben"]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split,group", *rows]))
    checkup = check_source(tmp_path / "table.csv")
    assert details(checkup, "group_leak") == ["group 'anna' has pictures in train and valid"]
    assert details(checkup, "duplicate") == ["listed 2 times"]
    assert details(checkup, "unreadable") == ["no such file"]
    # Dropping the path would drop both of its rows, and the other two have none to be dropped for.
    assert [(change.path, change.action) for change in checkup.proposal] == [("gone.png", "drop")]


def test_one_group_does_not_silence_the_names_of_other_pictures(tmp_path):
    write_faces(tmp_path / "faces", 12, size=32)
    files = sorted((tmp_path / "faces").rglob("*.png"))
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},train," for path in files]
    for row, split in ((3, "train"), (20, "valid")):
        path = files[row].rename(files[row].with_name(f"anna_{row:03}.png"))
        rows[row] = f"{path.relative_to(tmp_path)},{path.parent.name},{split},"
    rows[30] = rows[30].replace(",train,", ",valid,")
    rows[0] += "ben"
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split,group", *rows]))
    checkup = check_source(tmp_path / "table.csv")
    assert details(checkup, "group_leak") == ["names that begin with 'anna' in train and valid"]


def test_names_that_mean_groups_where_no_split_parts_them_yet(tmp_path):
    write_faces(tmp_path / "faces", 12, size=32)
    for path in sorted((tmp_path / "faces").rglob("0000[0-5].png")):
        person = ("anna", "ben", "carla")[int(path.stem) % 3]
        path.rename(path.with_name(f"{person}_{path.stem}.png"))
    checkup = check_source(tmp_path / "faces")
    found = [finding for finding in checkup.findings if finding.kind == "group_leak"]
    assert [finding.severity for finding in found] == ["note"]
    assert len(found[0].files) == 18
    groups = Counter(change.value for change in checkup.proposal if change.action == "group")
    assert groups == {"anna": 6, "ben": 6, "carla": 6}


def test_copies_of_a_named_group_stay_with_it(tmp_path):
    folder = write_faces(tmp_path / "faces", 8, size=48)[0].parents[1]
    for path in sorted(folder.rglob("0000[0-2].png")):
        path.rename(path.with_name(f"anna_{path.stem}.png"))
    face = opened(folder / "sad" / "anna_00002.png")
    ALTERED["mirrored"](face).save(folder / "sad" / "x.png")
    groups = {c.path: c.value for c in check_source(folder).proposal if c.action == "group"}
    assert len(groups) == 10
    assert "sad/x.png" in groups
    assert len(set(groups.values())) == 1


def test_of_very_many_classes_some_are_asked_about(tmp_path, monkeypatch):
    """Few pictures of each would tell nothing, and could not be divided into folds."""
    monkeypatch.setattr(shortcuts, "_MOST", 100)
    write_faces(tmp_path / "faces", {"happy": 30 * 20}, size=24)
    files = sorted((tmp_path / "faces").rglob("*.png"))
    rows = [f"{path},{number % 30}" for number, path in enumerate(files)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]))
    listing = survey(tmp_path / "table.csv")
    collection = Collection(listing, examine([s.path for s in listing.samples]), tmp_path)
    chosen = shortcuts._sample(collection)
    counts = Counter(collection.labels[row] for row in chosen)
    assert (len(counts), set(counts.values())) == (5, {20})
    assert kinds(check_source(tmp_path / "table.csv")) == {"small_class": 30}


def test_what_training_refuses_is_an_error_here_too(tmp_path):
    root = tmp_path / "faces"
    write_faces(root, {"happy": 20, "sad": 1}, size=16)
    checkup = check_source(root)
    (detail,) = details(checkup, "too_little")
    assert detail.startswith("1 picture of class 'sad': it takes at least 2")
    assert {one.severity for one in checkup.findings if one.kind == "too_little"} == {"error"}


@pytest.mark.parametrize("name", ["IMG_{}", "happy_{}", "{}", "DSC-2024-{}", "sunset_{}", "a_{}"])
def test_names_that_mean_no_groups(tmp_path, name):
    """Of cameras, of classes, of nothing; and of half of a class at once."""
    write_faces(tmp_path / "faces", 12, size=32)
    for path in sorted((tmp_path / "faces" / "happy").iterdir()):
        path.rename(path.with_name(f"{name.format(path.stem)}.png"))
    assert "group_leak" not in kinds(check_source(tmp_path / "faces"))


def test_classes_that_are_missing_small_uneven_or_named_twice(tmp_path):
    root = tmp_path / "faces"
    write_faces(root / "train", {"happy": 60, "sad": 4}, size=16)
    write_faces(root / "valid", {"happy": 6}, size=16, seed=1)
    (root / "train" / "sad").rename(root / "train" / "Sad ")
    (root / "valid" / "sad").mkdir(parents=True)
    shutil.copy(root / "train" / "Sad " / "00000.png", root / "valid" / "sad" / "x.png")
    (root / "train" / "angry").mkdir()
    checkup = check_source(root)
    assert details(checkup, "missing_class") == [
        "class 'angry' has no readable picture in train",
        "class 'sad' has no readable picture in train",
        "class 'Sad ' has no readable picture in valid",
        "class 'angry' has no readable picture in valid",
    ]
    assert details(checkup, "class_names") == ["'Sad ' (4), 'sad' (1): one class?"]
    assert details(checkup, "small_class") == ["class 'Sad ' has 4 pictures to learn from"]
    assert details(checkup, "imbalance") == [
        "'happy' has 60 pictures to learn from, 15 times as many as 'Sad ' (4)"
    ]
    by_kind = {finding.kind: finding.severity for finding in checkup.findings}
    assert by_kind["missing_class"] == "error"
    assert by_kind["imbalance"] == by_kind["small_class"] == "warning"
    # The leaked face is disputed too, but one copy is all that there is of its class.
    assert [(change.path, change.action) for change in checkup.proposal] == [
        ("train/Sad /00000.png", "drop"),
        ("valid/sad/x.png", "relabel"),
    ]


def test_a_class_of_nothing_but_damage_counts_as_missing(tmp_path):
    write_faces(tmp_path / "faces", 3, size=16)
    for path in (tmp_path / "faces" / "sad").iterdir():
        path.write_bytes(b"")
    assert "class 'sad' has no readable picture" in details(
        check_source(tmp_path / "faces"), "missing_class"
    )[0]  # fmt: skip


def _smaller(image: Image.Image) -> Image.Image:
    return image.resize((40, 40))


def _framed(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).copy()
    pixels[:3] = pixels[-3:] = (250, 250, 250)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("clue", "change", "suffix"),
    [("size", _smaller, ".png"), ("file type", None, ".bmp"), ("edge colours", _framed, ".png")],
)
def test_a_class_that_can_be_told_without_looking(tmp_path, clue, change, suffix):
    write_faces(tmp_path / "faces", 40, size=48)
    for path in (tmp_path / "faces" / "happy").iterdir():
        image = opened(path)
        path.unlink()
        (change(image) if change else image).save(path.with_suffix(suffix))
    checkup = check_source(tmp_path / "faces")
    found = [finding for finding in checkup.findings if finding.kind == "shortcut"]
    assert any(finding.detail.startswith(f"{clue} alone:") for finding in found)
    assert {finding.severity for finding in found if finding.detail.startswith(clue)} == {"warning"}


def test_no_pictures_at_all_is_an_error_of_the_source(tmp_path):
    with pytest.raises(DataError, match="no folder or table at"):
        check_source(tmp_path / "gone")
    (tmp_path / "flat").mkdir()
    with pytest.raises(DataError, match="has no sub-folders"):
        check_source(tmp_path / "flat")


def test_a_folder_of_nothing_but_damage(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "faces" / name / f"{number}.jpg").write_text("no picture")
    found = kinds(check_source(tmp_path / "faces"))
    assert found == {"not_a_picture": 6, "missing_class": 2}


def test_folders_of_classes_without_any_picture(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    checkup = check_source(tmp_path)
    assert kinds(checkup) == {"missing_class": 2}
    assert checkup.verdict == "2 errors in 0 pictures."


def test_equal_pixels_in_two_formats_are_exact_however_large(tmp_path):
    """JPEGs of this size are decoded smaller at first."""
    write_faces(tmp_path / "faces", 4, size=24)
    face = opened(tmp_path / "faces" / "happy" / "00000.png")
    large = face.resize((1100, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "faces" / "happy" / "a.jpg", quality=90)
    opened(tmp_path / "faces" / "happy" / "a.jpg").save(tmp_path / "faces" / "happy" / "b.png")
    large.save(tmp_path / "faces" / "happy" / "c.jpg", quality=40)
    checkup = check_source(tmp_path / "faces")
    found = {f.kind: [path.name for path in f.files] for f in checkup.findings if f.files}
    assert found["duplicate"] == ["a.jpg", "b.png"]
    assert set(found["near_duplicate"]) == {"a.jpg", "b.png", "c.jpg", "00000.png"}
    assert found["near_duplicate"][-1] == "00000.png"  # the smallest


def test_paths_are_as_the_listing_gives_them(tmp_path, monkeypatch):
    write_faces(tmp_path / "faces", 3, size=16)
    (tmp_path / "faces" / "sad" / "00001.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    empty = next(f for f in check_source(Path("faces")).findings if f.kind == "empty")
    assert empty.to_json()["files"] == ["faces/sad/00001.png"]
