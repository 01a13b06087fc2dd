import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.data.folder import list_labelled, survey
from vitreous.data.overlay import Change, overlay_text, read_overlay
from vitreous.data.table import Sample, write_rows
from vitreous.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def overlay_at(tmp_path: Path, *rows: str, head: str = "path,action,value,reason"):
    path = tmp_path / "overlay.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return read_overlay(path)


def refusal(tmp_path: Path, *rows: str, head: str = "path,action,value,reason") -> str:
    samples = [Sample(tmp_path / "a.jpg", "cat"), Sample(tmp_path / "b.jpg", "dog")]
    with pytest.raises(DataError) as caught:
        overlay_at(tmp_path, *rows, head=head).applied_to(samples, tmp_path)
    assert "\n" not in str(caught.value)
    assert "overlay.csv" in str(caught.value)
    return str(caught.value)


@pytest.fixture
def pictures(tmp_path) -> Path:
    return touch(tmp_path / "root", "cat/a.jpg", "cat/b.jpg", "cat/c.jpg", "dog/d.jpg", "dog/e.jpg")


def test_what_is_written_is_read_again(tmp_path):
    changes = [
        Change("train/big, old/a.jpg", "drop", reason='says "no"'),
        Change("ä\udcff.jpg", "relabel", "dog"),
        Change("/far/b.jpg", "group", "anna"),
        Change(" happy/ a.jpg ", "relabel", "Sad "),
        Change("\tb.jpg", "drop", reason=" so "),
    ]
    path = tmp_path / "overlay.csv"
    path.write_bytes(overlay_text(changes).encode("utf-8", "surrogateescape"))
    overlay = read_overlay(path)
    assert [change for _, change in overlay.changes] == changes
    assert [line for line, _ in overlay.changes] == [2, 3, 4, 5, 6]
    assert str(overlay) == "2 dropped, 2 relabelled, 1 grouped"
    assert overlay.text == overlay_text(changes)
    assert str(overlay_at(tmp_path)) == "nothing to change"


def test_a_listing_is_changed_and_the_folder_is_not(tmp_path, pictures):
    overlay = overlay_at(
        tmp_path,
        "cat/a.jpg,drop,,damaged",
        "cat/b.jpg,relabel,dog,",
        f"{pictures / 'dog' / 'd.jpg'},group,anna,",
        "cat/b.jpg,group,anna,",
    )
    before = survey(pictures)
    listing = list_labelled(pictures, overlay)
    assert [(s.path.name, s.label, s.group) for s in listing.samples] == [
        ("b.jpg", "dog", "anna"),
        ("c.jpg", "cat", None),
        ("d.jpg", "dog", "anna"),
        ("e.jpg", "dog", None),
    ]
    assert listing.classes == ("cat", "dog")
    assert survey(pictures) == before


def test_paths_count_from_the_table(tmp_path):
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    table.write_text("path,label\n../a.jpg,cat\n../a.jpg,cat\nsub/b.jpg,dog\n")
    listing = list_labelled(table, overlay_at(tmp_path, "../tables/../a.jpg,relabel,dog,"))
    assert [sample.label for sample in listing.samples] == ["dog", "dog", "dog"]
    with pytest.raises(DataError, match=r"line 2: no picture 'tables/sub/b.jpg' is listed in"):
        list_labelled(table, overlay_at(tmp_path, "tables/sub/b.jpg,drop,,"))


def test_groups_that_share_a_picture_become_one(tmp_path):
    """A copy that ties anna to ben must not tear either from the rest."""
    people = {"a1": "anna", "a2": "anna", "b1": "ben", "b2": "ben", "c1": "carla", "d": None}
    samples = [Sample(tmp_path / name, "x", group=group) for name, group in people.items()]
    overlay = overlay_at(
        tmp_path, "a1,group,copies-1,", "b1,group,copies-1,", "d,group,copies-2,",
        "b2,group,copies-2,",
    )  # fmt: skip
    groups = [sample.group for sample in overlay.applied_to(samples, tmp_path)]
    assert len({*groups[:4], groups[5]}) == 1
    assert groups[4] == "carla"


def test_votes_for_a_label_that_was_taken_back_don_t_count(tmp_path):
    votes = {"cat": 9.0, "dog": 1.0}
    samples = [
        Sample(tmp_path / "a", "cat", votes=votes),
        Sample(tmp_path / "b", "dog", votes=votes),
    ]
    changed = overlay_at(tmp_path, "a,relabel,dog,").applied_to(samples, tmp_path)
    assert dict(changed[0].votes) == {"cat": 0.0, "dog": 0.0}
    assert changed[1] == samples[1]


def test_classes_follow_what_is_left(tmp_path):
    root = touch(tmp_path / "root", "train/Cat/a.jpg", "train/dog/d.jpg", "valid/cat/b.jpg",
                 "valid/dog/e.jpg")  # fmt: skip
    with pytest.raises(DataError, match="class 'cat' in the valid folder"):
        list_labelled(root)
    mended = list_labelled(root, overlay_at(tmp_path, "valid/cat/b.jpg,relabel,Cat,one class"))
    assert mended.classes == ("Cat", "dog")
    fewer = list_labelled(
        root, overlay_at(tmp_path, "train/Cat/a.jpg,drop,,", "valid/cat/b.jpg,drop,,")
    )
    assert fewer.classes == ("dog",)
    every = [f"{path},drop,," for path in root.rglob("*.jpg")]
    with pytest.raises(DataError, match="drops every picture"):
        list_labelled(root, overlay_at(tmp_path, *every))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a.jpg,drop,,", "c.jpg,drop,,"], "line 3: no picture 'c.jpg' is listed"),
        (["a.jpg,dorp,,"], "line 2: unknown action 'dorp': did you mean 'drop'?"),
        (["a.jpg,,,"], "line 2: unknown action ''"),
        ([",drop,,"], "line 2: 'path' is empty"),
        (["a.jpg,relabel,,"], "line 2: relabel needs a value"),
        (["a.jpg,group"], "line 2: group needs a value"),
        (["a.jpg,drop,dog,"], "line 2: drop takes no value"),
        (["a.jpg,relabel,dgo,"], "line 2: no class 'dgo': did you mean 'dog'?"),
        (["a.jpg,drop,,", "./a.jpg,drop,,"], "line 3: ./a.jpg is dropped in line 2 already"),
        (["a.jpg,group,x,", "a.jpg,group,y,"], "line 3: a.jpg is grouped in line 2 already"),
        (["a.jpg,drop,,", "a.jpg,group,y,"], "line 3: a.jpg is dropped in line 2 already"),
        (["a.jpg,group,y,", "", "a.jpg,drop,,"], "line 4: a.jpg is grouped in line 2 already"),
        (["a.jpg,drop,,,"], "line 2: 5 fields for 4 columns"),
        (['"a.jpg,drop,,'], "is not a CSV table"),
    ],
)
def test_a_bad_line_is_named(tmp_path, rows, words):
    assert words in refusal(tmp_path, *rows)


@pytest.mark.parametrize("head", ["", "path,action", "path;action;value", "path,action,value,why",
                                  "path,action,value,value"])  # fmt: skip
def test_other_columns_are_refused(tmp_path, head):
    assert "an overlay has path, action, value, reason" in refusal(tmp_path, head=head)


def test_a_missing_overlay(tmp_path):
    with pytest.raises(DataError, match=r"can't read the overlay .*gone.csv: No such file"):
        read_overlay(tmp_path / "gone.csv")


def test_spaces_belong_to_files_and_classes(tmp_path):
    root = touch(tmp_path / "root", " cat/a.jpg", "cat/a.jpg", "dog/b.jpg")
    listing = list_labelled(root, overlay_at(tmp_path, " cat/a.jpg, drop , ,"))
    assert [sample.label for sample in listing.samples] == ["cat", "dog"]
    assert "no class 'cat '" in refusal(tmp_path, "b.jpg,relabel,cat ,")
    grouped = overlay_at(tmp_path, "cat/a.jpg,group, anna,", "dog/b.jpg,group,anna,")
    assert [sample.group for sample in list_labelled(root, grouped).samples] == [
        None, "anna", "anna"
    ]  # fmt: skip


def test_a_class_of_which_nothing_is_left_is_named_and_a_renamed_one_is_not(tmp_path, pictures):
    rows = [f"cat/{name}.jpg,drop,," for name in "abc"]
    assert list_labelled(pictures).dropped == ()
    assert list_labelled(pictures, overlay_at(tmp_path, *rows[:2])).dropped == ()
    assert list_labelled(pictures, overlay_at(tmp_path, *rows)).dropped == ("cat",)
    rows[0] = "cat/a.jpg,relabel,dog,"
    renamed = list_labelled(pictures, overlay_at(tmp_path, *rows))
    assert (renamed.classes, renamed.dropped) == (("dog",), ())


def test_reasons_and_order_of_columns_are_free(tmp_path, pictures):
    overlay = overlay_at(tmp_path, "drop,cat/a.jpg,", head="action, path ,value")
    assert len(list_labelled(pictures, overlay).samples) == 4
    samples = survey(pictures).samples
    changed = overlay_at(tmp_path, "cat/a.jpg,group,g,").applied_to(samples, pictures)
    assert changed[0] == replace(samples[0], group="g")


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_rows_come_back_whatever_is_in_them(rows):
    """Carriage returns, too, which Python's writer leaves unquoted until version 3.13."""
    text = io.StringIO()
    write_rows(text, rows)
    back = csv.reader(io.StringIO(text.getvalue(), newline=""), strict=True)
    assert [tuple(row) for row in back] == rows
