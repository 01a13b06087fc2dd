"""Tars that others made: which of their files belong together, and which tars aren't whole."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from vitreous.data.decode import read_picture
from vitreous.data.folder import list_labelled
from vitreous.errors import DataError


@pytest.fixture
def tar_of(photo, tmp_path):
    """A tar of named members: a picture of its own for each, or the text that is given."""

    def make(*members: str | tuple[str, str], name: str = "a.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            for number, member in enumerate(members):
                name_of, text = (member, None) if isinstance(member, str) else member
                buffer = io.BytesIO(b"" if text is None else text.encode())
                if text is None:
                    Image.fromarray(photo(10, 14, number)).save(buffer, "png")
                info = tarfile.TarInfo(name_of)
                info.size = len(buffer.getvalue())
                buffer.seek(0)
                tar.addfile(info, buffer)
        return tmp_path / name

    return make


def found(tar) -> list[tuple[str, str | None]]:
    return [
        (sample.path.relative_to(tar).as_posix(), sample.label)
        for sample in list_labelled(tar).samples
    ]


def told(label: str) -> str:
    return json.dumps({"label": label})


@pytest.mark.parametrize("together", [True, False])
def test_labels_go_with_the_pictures_that_they_are_named_after(tar_of, photo, together):
    """Where names have dots in them, too, whether a picture's files are neighbours or not."""
    pairs = [(f"x/IMG.{n}.png", (f"x/IMG.{n}.json", told(f"c{n % 2}"))) for n in range(4)]
    members = [one for pair in pairs for one in pair]
    tar = tar_of(*(members if together else [*members[::2], *members[1::2]]))
    assert found(tar) == [(f"x/IMG.{n}.png", f"c{n % 2}") for n in range(4)]
    for number, sample in enumerate(list_labelled(tar).samples):
        place = 2 * number if together else number
        assert np.array_equal(read_picture(sample.path), photo(10, 14, place))
    alone = tar_of("cat/1.0.png", ("cat/1.0.cls", "dog"), "cat/1.1.png", name="b.tar")
    assert found(alone) == [("cat/1.0.png", "dog"), ("cat/1.1.png", "cat")]


def test_several_pictures_of_one_sample_are_its_first(tar_of):
    tar = tar_of("1.left.png", "1.right.png", ("1.cls", "cat"), "2.png", ("2.meta.json", "{}"),
                 ("2.cls", "dog"))  # fmt: skip
    assert found(tar) == [("1.left.png", "cat"), ("2.png", "dog")]


def test_labels_that_do_not_lie_beside_their_pictures_are_not_missed_in_silence(tar_of):
    """As `tar cf a.tar x/*.png x/*.json` puts them, and the other way round."""
    pictures = [f"x/{n}.png" for n in range(3)]
    labels = [(f"x/{n}.JSON", told("happy")) for n in range(3)]
    for number, members in enumerate((pictures + labels, labels + pictures)):
        tar = tar_of(*members, name=f"{number}.tar")
        with pytest.raises(DataError, match=r"files of x/\d don't lie in a row.*--sort=name"):
            list_labelled(tar)
    broken = tar_of(*pictures, ("notes.json", "[1,"), name="n.tar")  # of no picture
    assert {label for _, label in found(broken)} == {"x"}
    about = [(f"x/{n}.json", '{"camera": 1}') for n in range(3)]
    assert {label for _, label in found(tar_of(*pictures, *about))} == {"x"}
    one = tar_of(*(one for pair in zip(pictures, labels, strict=True) for one in pair))
    assert {label for _, label in found(one)} == {"happy"}


def test_a_split_is_known_by_its_folder_with_a_label_beside_the_picture_too(tar_of):
    tar = tar_of(
        "train/a/1.png", ("train/a/1.json", told("happy")), "test/a/2.png", ("test/a/2.cls", "sad"),
        "test/3.png", ("test/3.cls", "sad"), "train/sad/4.png", "x/test/5.png",
    )  # fmt: skip
    splits = {
        sample.path.name: (sample.label, sample.split) for sample in list_labelled(tar).samples
    }
    assert splits == {
        "1.png": ("happy", "train"), "2.png": ("sad", "test"), "3.png": ("sad", "test"),
        "4.png": ("sad", "train"), "5.png": ("test", None),
    }  # fmt: skip


def test_hidden_files_and_those_of_systems_are_nobodys(tar_of):
    tar = tar_of(
        "f/cat/1.png", "f/cat/.ipynb_checkpoints/1-checkpoint.png", "f/dog/2.png",
        "f/dog/@eaDir/2.png/SYNO_THUMB.png", "__MACOSX/f/dog/._2.png", "f/dog/../3.png",
    )  # fmt: skip
    assert found(tar) == [("f/cat/1.png", "cat"), ("f/dog/2.png", "dog")]


def test_names_are_paths_however_they_are_written(tar_of, photo):
    tar = tar_of("faces//cat/1.png", "./faces/./dog/2.png")
    assert found(tar) == [("faces/cat/1.png", "cat"), ("faces/dog/2.png", "dog")]
    for number, sample in enumerate(list_labelled(tar).samples):
        assert np.array_equal(read_picture(sample.path), photo(10, 14, number))


def test_a_linked_picture_is_the_one_that_it_links_to(tmp_path, photo):
    for name in ("f/cat/1.png", "f/dog/2.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        Image.fromarray(photo(10, 14, len(name))).save(path)
    os.link(tmp_path / "f/cat/1.png", tmp_path / "f/dog/3.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "f", "f")
        assert any(member.islnk() for member in tar.getmembers())
    assert {name for name, _ in found(tmp_path / "a.tar")} == {
        "f/cat/1.png", "f/dog/2.png", "f/dog/3.png"
    }  # fmt: skip
    first, _, third = sorted(list_labelled(tmp_path / "a.tar").samples, key=lambda one: one.path)
    assert np.array_equal(read_picture(first.path), read_picture(third.path))
    # So with labels; what a symbolic link leads to isn't there.
    (tmp_path / "f/cat/1.cls").write_text("lion")
    os.link(tmp_path / "f/cat/1.cls", tmp_path / "f/dog/2.cls")
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        for name in ("cat/1.png", "cat/1.cls", "dog/2.png", "dog/2.cls"):
            tar.add(tmp_path / "f" / name, name)
    assert {label for _, label in found(tmp_path / "c.tar")} == {"lion"}
    (tmp_path / "f/dog/4.png").symlink_to("2.png")
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        tar.add(tmp_path / "f", "f")
    with pytest.raises(DataError, match=r"4\.png is a symbolic link.*--dereference"):
        list_labelled(tmp_path / "d.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = tarfile.LNKTYPE, "cat/0.png"
        tar.addfile(info)
    with pytest.raises(DataError, match=r"cat/1\.png is a link to cat/0\.png, not there"):
        list_labelled(tmp_path / "b.tar")


def test_a_tar_that_is_not_whole_is_told_wherever_it_breaks(tar_of):
    """Python's own reader takes a damaged header, or the file's end, for the end of the tar."""
    tar = tar_of(*(f"{('cat', 'dog')[n % 2]}/{n}.png" for n in range(6)))
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        place = opened.getmembers()[3].offset
    damaged = bytearray(whole)
    damaged[place + 150] ^= 1  # in its checksum
    for data, words in (
        (bytes(damaged), f"at byte {place:,} another file's header is damaged"),
        (whole[:place], f"at byte {place:,} it is cut off"),
        (whole[: place + 100], "header is damaged"),
        (whole[: place + 600], "unexpected end of data"),
    ):
        tar.write_bytes(data)
        with pytest.raises(DataError, match=words):
            list_labelled(tar)


def test_a_table_beside_a_tar_may_be_about_something_else(tar_of):
    tar = tar_of("cat/1.png", "dog/2.png")
    tar.with_suffix(".csv").write_bytes("Bild;Größe\n1;2\n".encode("latin-1"))
    assert found(tar) == [("cat/1.png", "cat"), ("dog/2.png", "dog")]
