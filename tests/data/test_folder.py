import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vitreous.data.folder import (
    check_beside,
    check_learnable,
    list_labelled,
    list_pictures,
    list_unlabelled,
    survey,
)
from vitreous.errors import DataError, RunError


def touch(root: Path, *names: str) -> Path:
    """Empty files: listing never opens a picture."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def rows(listing) -> list[tuple]:
    return [(sample.path.name, sample.label, sample.split) for sample in listing.samples]


def refusal(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_labelled(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_classes(tmp_path):
    root = touch(tmp_path, "dog/b.jpg", "dog/a.PNG", "cat/x.Jpeg", "cat/deep/er/y.webp",
                 "cat/z.TIF", "cat/v.gif", "cat/w.bmp", "cat/notes.txt", "cat/raw.cr2")  # fmt: skip
    listing = list_labelled(root)
    assert listing.classes == ("cat", "dog")
    assert rows(listing) == [
        ("v.gif", "cat", None),
        ("w.bmp", "cat", None),
        ("x.Jpeg", "cat", None),
        ("z.TIF", "cat", None),
        ("y.webp", "cat", None),
        ("a.PNG", "dog", None),
        ("b.jpg", "dog", None),
    ]
    assert [path.name for path in listing.ignored] == ["notes.txt", "raw.cr2"]


def test_what_lies_outside_the_classes_is_told(tmp_path):
    root = touch(tmp_path, "cat/a.jpg", "dog/a.jpg", "stray.jpg", "README.md", ".hidden")
    assert [path.name for path in list_labelled(root).ignored] == ["README.md", "stray.jpg"]
    split = touch(tmp_path / "s", "train/cat/a.jpg", "val/cat/a.jpg", "train/stray.jpg", "top.jpg")
    listing = list_labelled(split)
    assert rows(listing) == [("a.jpg", "cat", "train"), ("a.jpg", "cat", "valid")]
    assert [path.name for path in listing.ignored] == ["top.jpg", "stray.jpg"]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    root = touch(
        tmp_path, "cat/a.jpg", "cat/._a.jpg", "cat/.cache/b.jpg", ".git/c.jpg", "dog/d.jpg"
    )
    assert [name for name, _, _ in rows(list_labelled(root))] == ["a.jpg", "d.jpg"]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("val", "valid"),
        ("validation", "valid"),
        ("dev", "valid"),
        ("valid", "valid"),
        ("VAL", "valid"),
        ("Test", "test"),
        ("validate", "valid"),
        ("Testing", "test"),
    ],
)
def test_names_of_splits(tmp_path, folder, split):
    root = touch(tmp_path, "Train/cat/a.jpg", f"{folder}/cat/b.jpg")
    listing = list_labelled(root)
    assert sorted(rows(listing)) == [("a.jpg", "cat", "train"), ("b.jpg", "cat", split)]
    assert listing.classes == ("cat",)


def test_what_systems_put_among_pictures_is_passed_over(tmp_path):
    root = touch(tmp_path, "cat/a.jpg", "cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "dog/b.jpg",
                 "__MACOSX/cat/c.jpg", "lost+found/d.jpg", "#recycle/e.jpg")  # fmt: skip
    listing = list_labelled(root)
    assert listing.classes == ("cat", "dog")
    assert rows(listing) == [("a.jpg", "cat", None), ("b.jpg", "dog", None)]
    assert listing.ignored == ()


def test_train_may_be_a_class(tmp_path):
    root = touch(tmp_path, "train/ice.jpg", "plane/jet.jpg")
    assert rows(list_labelled(root)) == [("jet.jpg", "plane", None), ("ice.jpg", "train", None)]


def test_splits_without_classes_are_not_taken_for_classes(tmp_path):
    flat = touch(tmp_path / "flat", "train/a.jpg", "test/b.jpg")
    assert "flat/test has no sub-folders" in refusal(flat)
    kaggle = touch(tmp_path / "kaggle", "train/cat/a.jpg", "train/dog/a.jpg", "test/1.jpg")
    assert "kaggle/test has no sub-folders" in refusal(kaggle)


def test_a_folder_beside_the_splits_is_refused(tmp_path):
    root = touch(tmp_path, "train/cat/a.jpg", "valid/cat/b.jpg", "extra/c.jpg")
    assert "beside them extra" in refusal(root)
    assert "the name of a split (train, valid, calibration, test)" in refusal(root)


def test_splits_without_train(tmp_path):
    root = touch(tmp_path / "two", "valid/cat/b.jpg", "test/cat/b.jpg")
    assert "no 'train' folder" in refusal(root)
    alone = list_labelled(touch(tmp_path / "one", "test/cat/b.jpg", "test/dog/b.jpg"))
    assert {sample.split for sample in alone.samples} == {"test"}
    assert alone.classes == ("cat", "dog")


def test_empty_places_are_named(tmp_path):
    assert "no folder or table at" in refusal(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "empty has no sub-folders" in refusal(tmp_path / "empty")
    root = touch(tmp_path / "a", "cat/a.jpg", "dog/notes.txt")
    assert "class 'dog' is empty" in refusal(root)
    root = touch(tmp_path / "b", "train/cat/a.jpg", "train/dog/a.jpg", "val/cat/a.jpg")
    (root / "val" / "dog").mkdir()
    assert f"class 'dog' is empty: {root / 'val' / 'dog'}" in refusal(root)


def test_a_class_that_train_lacks(tmp_path):
    root = touch(tmp_path, "train/cat/a.jpg", "train/dog/a.jpg", "dev/cat/a.jpg", "dev/dgo/a.jpg")
    text = refusal(root)
    assert "class 'dgo' in the valid folder" in text
    assert "did you mean 'dog'?" in text


def test_a_survey_refuses_no_class(tmp_path):
    """The doctor has to tell more than the first of these."""
    root = touch(tmp_path, "train/cat/a.jpg", "train/dog/n.txt", "dev/cat/a.jpg", "dev/dgo/a.jpg")
    found = survey(root)
    assert found.classes == ("cat", "dgo", "dog")
    assert found.empty == (root / "train" / "dog",)
    assert rows(found) == [
        ("a.jpg", "cat", "valid"),
        ("a.jpg", "dgo", "valid"),
        ("a.jpg", "cat", "train"),
    ]
    assert list_labelled(touch(tmp_path / "good", "cat/a.jpg", "dog/a.jpg")).empty == ()


def test_links_are_followed(tmp_path):
    pool = touch(tmp_path / "pool", "one/a.jpg", "deep/b.jpg", "c.jpg")
    root = touch(tmp_path / "root", "dog/d.jpg")
    (root / "cat").symlink_to(pool / "one")
    (root / "dog" / "more").symlink_to(pool / "deep")
    (root / "dog" / "again").symlink_to(pool / "deep")
    (root / "dog" / "file.jpg").symlink_to(pool / "c.jpg")
    names = [(name, label) for name, label, _ in rows(list_labelled(root))]
    assert names == [("a.jpg", "cat"), ("d.jpg", "dog"), ("file.jpg", "dog"), ("b.jpg", "dog")]


def test_a_link_upwards_brings_no_other_class(tmp_path):
    pool = touch(tmp_path / "pool", "cats/a.jpg", "others/x.jpg")
    (pool / "cats" / "up").symlink_to(pool)
    root = touch(tmp_path / "root", "dog/d.jpg", "emu/e.jpg")
    (root / "cat").symlink_to(pool / "cats")
    (root / "dog" / "self").symlink_to(root / "dog")
    (root / "dog" / "root").symlink_to(root)
    names = [(name, label) for name, label, _ in rows(list_labelled(root))]
    assert names == [("a.jpg", "cat"), ("d.jpg", "dog"), ("e.jpg", "emu")]


def test_a_broken_link_is_listed_to_be_reported(tmp_path):
    root = touch(tmp_path, "cat/a.jpg", "dog/d.jpg")
    (root / "cat" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    assert "gone.jpg" in [name for name, _, _ in rows(list_labelled(root))]


def test_a_folder_that_may_not_be_opened_is_named(tmp_path, monkeypatch):
    root = touch(tmp_path, "cat/a.jpg", "cat/shut/b.jpg", "dog/d.jpg")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert refusal(root) == f"can't read {root / 'cat' / 'shut'}: Permission denied"
    with pytest.raises(DataError, match="shut: Permission denied"):
        list_pictures([root])


def test_a_class_name_that_is_not_utf8_is_refused(tmp_path):
    root = touch(tmp_path, "cat/a.jpg", os.fsdecode(b"L\xf6we/a.jpg"))
    assert "isn't UTF-8" in refusal(root)


def test_pictures_to_predict(tmp_path):
    root = touch(tmp_path, "d/b.jpg", "d/a.png", "d/x/c.gif", "d/n.txt", "e/n.txt", "one.dat")
    got = list_pictures([root / "one.dat", root / "d", root / "d" / "b.jpg"])
    assert [str(path.relative_to(root)) for path in got] == [
        "one.dat", "d/a.png", "d/b.jpg", "d/x/c.gif", "d/b.jpg"]  # fmt: skip
    with pytest.raises(DataError, match=r"no pictures in .*looked for \.bmp"):
        list_pictures([root / "e"])
    with pytest.raises(DataError, match="no file or folder at"):
        list_pictures([root / "f"])


def csv_at(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_csv_table(tmp_path):
    path = csv_at(
        tmp_path,
        "label,path,note,split,group\n"
        '"big, ""old"" cat",a.jpg,x,Train,g1\n'
        "\n"
        f" dog , {tmp_path}/far/b.jpg ,x,validation,\n"
        "dog,c d.jpg,,,7\n"
        '"big, ""old"" cat",e.jpg\n',
    )
    listing = list_labelled(path)
    assert listing.classes == ('big, "old" cat', "dog")
    assert [(s.path, s.label, s.split, s.group) for s in listing.samples] == [
        (tmp_path / "a.jpg", 'big, "old" cat', "train", "g1"),
        (tmp_path / "far/b.jpg", "dog", "valid", None),
        (tmp_path / "c d.jpg", "dog", None, "7"),
        (tmp_path / "e.jpg", 'big, "old" cat', None, None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_as_spreadsheets_write_it(tmp_path, encoding, newline):
    text = newline.join(["image , label", "ä.jpg,Löwe", "b.jpg,dog"])
    listing = list_labelled(csv_at(tmp_path, text, encoding))
    assert rows(listing) == [("ä.jpg", "Löwe", None), ("b.jpg", "dog", None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column 'path': it has none"),
        ("path,label\n", "has no rows"),
        ("file,label\na,b\n", "has no column 'path': it has file, label"),
        ("path,class\na,b\n", "has no column 'label': it has path, class"),
        ("path,label,label\na,b,c\n", "has 2 columns 'label'"),
        ("path,label\na.jpg,x\n,cat\n", "line 3: 'path' is empty"),
        ("path,label\na.jpg, \n", "line 2: 'label' is empty"),
        ("path,label\na.jpg\n", "line 2: 'label' is empty"),
        ("path,label\na,b.jpg,cat\n", "line 2: 3 fields for 2 columns"),
        ('path,label\n"a.jpg,cat\nb.jpg,dog\n', "not a CSV table in UTF-8"),
        ("path,label,split\na.jpg,x,trian\n", "split 'trian' is unknown: did you mean 'train'?"),
        ("path,label,split\na,cat,train\nb,dgo,val\n", "class 'dgo' in"),
        ("path,label,votes_a\nx,a,1\ny,b,many\n", "line 3: votes_a is 'many', not a number"),
        ("path,label,votes_a\nx,a,-1\n", "line 2: votes_a is '-1', not a number of 0 or more"),
        ("path,label,votes_a\nx,a,inf\n", "line 2: votes_a is 'inf'"),
    ],
)
def test_a_bad_csv_table(tmp_path, text, words):
    path = csv_at(tmp_path, text)
    text = refusal(path)
    assert words in text
    assert str(path) in text


def test_a_column_that_begins_like_votes_may_hold_anything(tmp_path):
    text = "path,label,votes_a,votes_b,votes_by\nx,a,2,1,anna;ben\ny,b,0,3,anna\n"
    listing = list_labelled(csv_at(tmp_path, text))
    assert [dict(sample.votes) for sample in listing.samples] == [
        {"a": 2, "b": 1},
        {"a": 0, "b": 3},
    ]


def test_votes_are_read_by_class(tmp_path):
    text = "path,label,votes_cat,votes_wet dog\na.jpg,cat,7,0\nb.jpg,wet dog,,2.5\n"
    votes = [dict(sample.votes) for sample in list_labelled(csv_at(tmp_path, text)).samples]
    assert votes == [{"cat": 7.0, "wet dog": 0.0}, {"cat": 0.0, "wet dog": 2.5}]
    assert list_unlabelled(tmp_path / "table.csv").samples[0].votes == {}


def test_tables_of_another_kind(tmp_path):
    assert "not a CSV table in UTF-8" in refusal(csv_at(tmp_path, "path,label\nä,b", "utf-16"))
    assert "not a CSV table in UTF-8" in refusal(csv_at(tmp_path, "path,label\nä,b", "latin-1"))
    (tmp_path / "t.tsv").write_text("path\tlabel\n")
    assert "neither a folder nor a .csv or .parquet table" in refusal(tmp_path / "t.tsv")
    (tmp_path / "t.parquet").write_text("path,label\n")
    assert "is not a Parquet table" in refusal(tmp_path / "t.parquet")


def test_a_parquet_table(tmp_path):
    table = pa.table(
        {
            "image": ["a.jpg", "b.jpg", "c.jpg"],
            "label": [3, 4, 3],
            "split": ["train", None, "dev"],
            "group": ["x", "x", None],
            "picture bytes": [b"x", b"y", b"z"],
        }
    )
    (tmp_path / "split=test").mkdir()  # a folder's name says nothing
    path = tmp_path / "split=test" / "t.parquet"
    pq.write_table(table, path)
    listing = list_labelled(path)
    assert listing.classes == ("3", "4")
    assert [(s.path.name, s.label, s.split, s.group) for s in listing.samples] == [
        ("a.jpg", "3", "train", "x"),
        ("b.jpg", "4", None, "x"),
        ("c.jpg", "3", "valid", None),
    ]


def test_text_in_a_parquet_table_may_be_stored_as_bytes(tmp_path):
    table = pa.table({"path": ["a.jpg", "b.jpg"], "label": [b"happy", "süß".encode()]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert list_labelled(tmp_path / "t.parquet").classes == ("happy", "süß")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": [b"\x89PNG"], "label": ["a"]}, "'image' holds binary, not paths"),
        (
            {"image": pa.array([b"\x89PNG"], pa.large_binary()), "label": ["a"]},
            "'image' holds large_binary, not paths",
        ),
        (
            {"image": pa.array([b"\x89PNG"], pa.binary(4)), "label": ["a"]},
            "'image' holds fixed_size_binary[4], not paths",
        ),
        ({"path": ["a.jpg"], "label": [["a"]]}, "'label' holds list<"),
        ({"path": ["a.jpg"], "label": [b"\xff"]}, "row 1: b'\\xff' is no UTF-8"),
        (  # as Hugging Face `datasets` writes pictures
            {"image": [{"bytes": b"\x89PNG", "path": "a.png"}], "label": ["a"]},
            "'image' holds struct<bytes: binary, path: string>, not paths",
        ),
        ({"path": ["a.jpg", None], "label": ["a", "b"]}, "row 2: 'path' is empty"),
        ({"path": ["a.jpg"]}, "no column 'label'"),
        ({"path": pa.array([], pa.string()), "label": pa.array([], pa.string())}, "no rows"),
    ],
)
def test_a_bad_parquet_table(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert words in refusal(tmp_path / "t.parquet")


def test_a_parquet_table_with_a_column_twice(tmp_path):
    table = pa.table([["a"], ["x"], ["y"]], names=["path", "label", "label"])
    pq.write_table(table, tmp_path / "t.parquet")
    assert "has 2 columns 'label'" in refusal(tmp_path / "t.parquet")


def test_without_labels_any_folder_of_pictures_will_do(tmp_path):
    root = touch(tmp_path, "b.jpg", "2019/a.jpg", "2019/trip/c.png", "notes.txt", ".d.jpg")
    listing = list_unlabelled(root)
    assert sorted(rows(listing)) == [
        ("a.jpg", None, None),
        ("b.jpg", None, None),
        ("c.png", None, None),
    ]
    assert listing.classes == ()
    assert [path.name for path in listing.ignored] == ["notes.txt"]


def test_without_labels_only_the_training_pictures_are_taken(tmp_path):
    flat = touch(tmp_path / "flat", "train/a.jpg", "test/b.jpg", "val/c.jpg", "d.jpg")
    assert rows(list_unlabelled(flat)) == [("a.jpg", None, None)]
    assert list_unlabelled(flat).ignored == (flat / "d.jpg",)
    sorted_in = touch(tmp_path / "classes", "train/cat/a.jpg", "train/b.jpg", "valid/cat/c.jpg")
    assert {sample.path.name for sample in list_unlabelled(sorted_in).samples} == {"a.jpg", "b.jpg"}
    trains = touch(tmp_path / "vehicles", "train/a.jpg", "plane/b.jpg")
    assert len(list_unlabelled(trains).samples) == 2
    table = tmp_path / "table.csv"
    table.write_text("image,split,group\na.jpg,,x\nb.jpg,train,\nc.jpg,val,\nd.jpg,test,y\n")
    listing = list_unlabelled(table)
    assert rows(listing) == [("a.jpg", None, None), ("b.jpg", None, None)]
    assert listing.samples[0].group == "x"


def test_without_labels_there_is_still_something_to_refuse(tmp_path):
    def refusal(source: Path) -> str:
        with pytest.raises(DataError) as caught:
            list_unlabelled(source)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    held_back = touch(tmp_path / "held", "test/a.jpg", "b.jpg")
    (tmp_path / "held.csv").write_text("path,split\na.jpg,test\n")
    (tmp_path / "odd.csv").write_text("file\na.jpg\n")
    assert "no folder or table at" in refusal(tmp_path / "gone")
    assert "no pictures in" in refusal(tmp_path / "empty")
    assert "has test but no 'train' folder" in refusal(held_back)
    assert "has no training pictures" in refusal(tmp_path / "held.csv")
    assert "no column 'path': it has file; needed are path (or image), and" in refusal(
        tmp_path / "odd.csv"
    )


def test_beside_pictures_is_not_among_them(tmp_path, monkeypatch):
    """Of a table too: what is written beside its classes' folders would be a class by next time."""
    faces = touch(tmp_path / "faces", "happy/a.jpg", "sad/b.jpg")
    (faces / "t.csv").write_text("path,label\nhappy/a.jpg,happy\nsad/b.jpg,sad\n")
    split = touch(tmp_path / "split", "train/sad/a.jpg", "train/sad/b.jpg")
    (split / "t.csv").write_text("path,label\ntrain/sad/a.jpg,sad\ntrain/sad/b.jpg,glad\n")
    for source, folder in ((faces, faces), (faces / "t.csv", faces), (split / "t.csv", split)):
        monkeypatch.chdir(folder)
        for out in (Path("checks/t"), folder / "checks", folder / "happy" / "x"):
            with pytest.raises(RunError, match=r"lies among the pictures of .*: name another"):
                check_beside(out, source)
        check_beside(Path("../checks"), source)


def test_a_table_above_the_folders_of_its_pictures_has_room_beside_it(tmp_path):
    touch(tmp_path, "pictures/a.jpg", "pictures/happy/b.jpg")
    table = tmp_path / "t.csv"
    table.write_text("path,label\npictures/a.jpg,happy\npictures/happy/b.jpg,happy\n")
    check_beside(tmp_path / "checks", table)
    with pytest.raises(RunError, match="lies among"):
        check_beside(tmp_path / "pictures" / "checks", table)
    (tmp_path / "bare.csv").write_text("path\npictures/a.jpg\n")
    check_beside(tmp_path / "checks", tmp_path / "bare.csv", labelled=False)
    with pytest.raises(RunError, match="exists already"):
        check_beside(tmp_path / "pictures", table)


def test_one_folder_too_high_is_told_with_the_right_one(tmp_path):
    root = touch(tmp_path, *(f"faces/{name}/{n}.jpg" for name in ("cat", "dog") for n in "ab"),
                 "faces/c.jpg")  # fmt: skip
    listing = list_labelled(root)
    with pytest.raises(
        DataError, match=rf"it has the folders 'cat', 'dog': name {root / 'faces'} inst"
    ):
        check_learnable(listing, root)
    check_learnable(list_labelled(root / "faces"), root / "faces")
    with pytest.raises(DataError, match=r"needs at least 2, one sub-folder each$"):
        check_learnable(list_labelled(touch(tmp_path / "b", "cat/a.jpg")), tmp_path / "b")


def test_what_browsers_call_a_jpeg_is_a_picture(tmp_path):
    root = touch(tmp_path, "cat/a.jfif", "dog/a.JFIF", "dog/b.jpe")
    assert len(list_labelled(root).samples) == 3


def test_photographs_that_are_not_read_are_told(tmp_path):
    root, told = touch(tmp_path, "a/1.jpg", "a/2.HEIC", "b/3.avif", "b/notes.txt"), []
    assert [path.name for path in list_pictures([root], told.append)] == ["1.jpg"]
    assert [[path.name for path in paths] for paths in told] == [["2.HEIC", "3.avif"]]
