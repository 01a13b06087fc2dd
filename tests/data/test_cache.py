import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from vitreous.data import cache as module
from vitreous.data.cache import Pixels, cached_pixels, decode_fitted
from vitreous.data.decode import read_picture
from vitreous.data.preprocess import Preprocess, fit
from vitreous.errors import DataError, StorageError, UnreadablePicture

SMALL = Preprocess(image_size=(8, 6))
PLENTY = 10**9


@pytest.fixture
def pictures(tmp_path, class_folder) -> list[Path]:
    folder = class_folder(tmp_path / "pictures", {"a": 4, "b": 3}, side=20)
    return sorted(folder.rglob("*.png"))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that were decoded, in the order they were asked for."""
    names = []

    def read(path, **options):
        names.append(path.name)
        return read_picture(path, **options)

    monkeypatch.setattr(module, "read_picture", read)
    return names


def entries(cache_dir: Path) -> set[str]:
    """All that is not a lock."""
    return {path.name for path in cache_dir.iterdir() if path.suffix != ".lock"}


def disk_use(cache_dir: Path) -> int:
    return sum(path.stat().st_size for path in cache_dir.rglob("*") if path.is_file())


def same(one: Pixels, other: Pixels) -> bool:
    return np.array_equal(one.array, other.array) and (
        (one.fingerprints, one.errors) == (other.fingerprints, other.errors)
    )


def test_rows_are_the_decoded_and_fitted_files(tmp_path, pictures, photo, snapshot):
    bad = tmp_path / "pictures" / "bad.png"
    bad.write_text("no picture")
    Image.fromarray(photo(9, 31)).save(tmp_path / "pictures" / "wide.jpg")
    paths = [pictures[3], bad, tmp_path / "pictures" / "wide.jpg", *pictures, tmp_path / "gone"]
    before = snapshot(tmp_path / "pictures")
    got = cached_pixels(paths, SMALL, tmp_path / "cache", PLENTY)
    assert snapshot(tmp_path / "pictures") == before
    assert got.array.shape == (len(paths), 8, 6, 3)
    assert got.array.dtype == np.uint8
    assert isinstance(got.array, np.memmap)
    assert got.errors == {1: got.errors[1], len(paths) - 1: "no such file"}
    assert "not a picture" in got.errors[1]
    for row, path in enumerate(paths):
        if row in got.errors:
            assert not got.array[row].any()
            assert got.fingerprints[row] == ""
        else:
            picture = read_picture(path)
            assert np.array_equal(got.array[row], fit(picture, SMALL))
    assert got.fingerprints[0] == got.fingerprints[3 + 3]
    assert len(set(got.fingerprints)) == len(pictures) + 2
    plain = list(decode_fitted(paths, SMALL))
    assert [row for row, one in enumerate(plain) if isinstance(one, UnreadablePicture)] == [
        1,
        len(paths) - 1,
    ]


def test_equal_pixels_have_equal_fingerprints_in_any_format(tmp_path, photo):
    image = Image.fromarray(photo(10, 12))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.bmp")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    Image.new("RGB", (3, 4)).save(tmp_path / "c.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "d.png")
    paths = [tmp_path / name for name in ("a.png", "a.bmp", "b.png", "c.png", "d.png")]
    prints = cached_pixels(paths, SMALL, tmp_path / "cache", PLENTY).fingerprints
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_the_second_time_nothing_is_decoded(tmp_path, pictures, decoded):
    first = cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY)
    assert sorted(decoded) == sorted(path.name for path in pictures)
    decoded.clear()
    said = []
    again = cached_pixels(
        pictures, SMALL, tmp_path / "cache", PLENTY, lambda *words: said.append(words)
    )
    assert decoded == []
    assert same(first, again)
    assert said == [("reading", 7, 7)]


def test_a_moved_folder_finds_its_entry(tmp_path, pictures, decoded):
    first = cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY)
    decoded.clear()
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / path.relative_to(tmp_path / "pictures") for path in pictures]
    assert same(first, cached_pixels(moved, SMALL, tmp_path / "cache", PLENTY))
    assert decoded == []
    assert len(entries(tmp_path / "cache")) == 1


def test_mean_and_std_share_an_entry_and_geometry_does_not(tmp_path, pictures):
    for settings in (
        SMALL,
        Preprocess(image_size=(8, 6), mean=(0.1, 0.2, 0.3)),
        Preprocess(image_size=(8, 6), interpolation="bilinear"),
        Preprocess(image_size=(8, 6), resize=(9, 9)),
        Preprocess(image_size=(6, 8)),
    ):
        got = cached_pixels(pictures, settings, tmp_path / "cache", PLENTY)
        assert np.array_equal(got.array[0], fit(read_picture(pictures[0]), settings))
    assert len(entries(tmp_path / "cache")) == 4


def test_a_changed_file_gives_new_pixels_whatever_its_date_says(tmp_path, photo):
    path = tmp_path / "a.bmp"
    Image.fromarray(photo(10, 10, 1)).save(path)
    status = path.stat()
    first = cached_pixels([path], SMALL, tmp_path / "cache", PLENTY)
    Image.fromarray(photo(10, 10, 2)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    second = cached_pixels([path], SMALL, tmp_path / "cache", PLENTY)
    assert np.array_equal(second.array[0], fit(read_picture(path), SMALL))
    assert not np.array_equal(first.array[0], second.array[0])


def test_a_missing_file_that_comes_back_is_read(tmp_path, pictures, photo):
    paths = [*pictures, tmp_path / "late.png"]
    assert 7 in cached_pixels(paths, SMALL, tmp_path / "cache", PLENTY).errors
    Image.fromarray(photo(10, 10)).save(paths[-1])
    assert cached_pixels(paths, SMALL, tmp_path / "cache", PLENTY).errors == {}


def test_the_reason_is_todays(tmp_path, pictures, monkeypatch):
    paths = [*pictures, tmp_path / "late.png"]

    def reason() -> str:
        return cached_pixels(paths, SMALL, tmp_path / "cache", PLENTY).errors[7]

    assert reason() == "no such file"
    paths[-1].mkdir()
    assert reason() == "not a file"
    paths[-1].rmdir()
    paths[-1].write_bytes(b"words")
    assert "not a picture" in reason()
    for number, text in ((13, "Permission denied"), (5, "Input/output error")):
        with monkeypatch.context() as patch:
            usual = Path.open

            def refuse(path, *args, number=number, text=text, usual=usual, **options):
                if path.name == "late.png":
                    raise OSError(number, text, str(path))
                return usual(path, *args, **options)

            patch.setattr(Path, "open", refuse)
            assert reason() == f"can't be read: {text}"


def test_a_file_that_changes_while_it_is_read_makes_no_entry(tmp_path, pictures, monkeypatch):
    def read(path, **options):
        picture = read_picture(path, **options)
        if path == pictures[2]:
            Image.new("RGB", (99, 99)).save(path)
        return picture

    monkeypatch.setattr(module, "read_picture", read)
    with pytest.raises(DataError, match=f"{pictures[2]} changed while it was read"):
        cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY)
    assert entries(tmp_path / "cache") == set()


def test_a_fault_of_the_disk_that_passes_makes_no_entry(tmp_path, pictures, monkeypatch):
    usual, opened = Path.open, []

    def fail_once(path, *args, **options):
        if path == pictures[2]:
            opened.append(path)
            if len(opened) == 2:  # its contents are known by now
                raise OSError(5, "Input/output error", str(path))
        return usual(path, *args, **options)

    monkeypatch.setattr(Path, "open", fail_once)
    with pytest.raises(DataError, match=f"{pictures[2]} .* can't be read: Input/output error"):
        cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY)
    assert entries(tmp_path / "cache") == set()
    assert cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY).errors == {}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_build_leaves_nothing(tmp_path, pictures, monkeypatch, stop):
    def interrupt(*words):
        if words[0] == "decoding":
            raise stop

    with pytest.raises(stop):
        cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY, interrupt)
    assert entries(tmp_path / "cache") == set()
    assert cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY).errors == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.json", None),
        ("index.json", b""),
        ("index.json", b"[1]"),
        ("index.json", b'{"fingerprints": []}'),
        ("pixels.npy", None),
        ("pixels.npy", b""),
        ("pixels.npy", "cut"),
    ],
)
def test_a_damaged_entry_is_built_anew(tmp_path, pictures, name, content):
    first = cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY)
    first = Pixels(np.array(first.array), first.fingerprints, first.errors)
    (entry,) = entries(tmp_path / "cache")
    damaged = tmp_path / "cache" / entry / name
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:200] if content == "cut" else content)
    assert same(first, cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY))
    assert entries(tmp_path / "cache") == {entry}


def test_what_is_used_least_recently_goes_first(tmp_path, pictures, decoded):
    cache_dir = tmp_path / "cache"
    sets = [pictures[:2], pictures[2:4], pictures[4:6], pictures[5:7]]
    names = []
    for chosen in sets[:3]:
        cached_pixels(chosen, SMALL, cache_dir, PLENTY)
        (new,) = entries(cache_dir) - set(names)
        names.append(new)
    for age, name in zip((300, 200, 100), names, strict=True):
        os.utime(cache_dir / name, (time.time() - age,) * 2)
    limit = disk_use(cache_dir) + 400
    held = cached_pixels(sets[0], SMALL, cache_dir, limit)  # used: now the second is the oldest
    content = held.array.copy()
    cached_pixels(sets[3], SMALL, cache_dir, limit)
    assert names[1] not in entries(cache_dir)
    assert {names[0], names[2]} < entries(cache_dir)
    assert disk_use(cache_dir) <= limit
    # Room for one alone: all others go, and one that is still read keeps its pages.
    cached_pixels(pictures[:3], SMALL, cache_dir, 3 * (8 * 6 * 3 + 64) + 512)
    assert len(entries(cache_dir)) == 1
    assert np.array_equal(held.array, content)


def test_on_a_disk_that_the_cache_fills_its_old_entries_go(tmp_path, pictures, monkeypatch):
    cache_dir = tmp_path / "cache"
    for at in (0, 3):
        cached_pixels(pictures[at : at + 3], SMALL, cache_dir, PLENTY)
    before = entries(cache_dir)
    disk = SimpleNamespace(free=100)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: disk)
    cached_pixels(pictures[:2], SMALL, cache_dir, PLENTY)
    assert not before <= entries(cache_dir)
    # For what the disk has no room for anyway, none has to go.
    before, disk.free = entries(cache_dir), -10_000
    cached_pixels(pictures[2:4], SMALL, cache_dir, PLENTY)
    assert before < entries(cache_dir)


def test_what_another_process_builds_on_a_full_disk_is_the_caches_too(
    tmp_path, pictures, monkeypatch
):
    """Its bytes are gone from the free ones already: nothing has to go for them once more."""
    cache_dir = tmp_path / "cache"
    cached_pixels(pictures[:2], SMALL, cache_dir, PLENTY)
    before = entries(cache_dir)
    theirs = cache_dir / f".making-{'a' * 32}"
    theirs.mkdir()
    (theirs / "pixels.npy").write_bytes(bytes(100_000))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: SimpleNamespace(free=50_000))
    with FileLock(cache_dir / f"{'a' * 32}.lock"):
        cached_pixels(pictures[2:4], SMALL, cache_dir, PLENTY)
    assert before < entries(cache_dir)


def test_what_another_process_opens_or_builds_stays(tmp_path, pictures):
    cache_dir = tmp_path / "cache"
    cached_pixels(pictures[:2], SMALL, cache_dir, PLENTY)
    (in_use,) = entries(cache_dir)
    live, dead = (f".making-{digit * 32}" for digit in "ab")
    work = "c" * 32  # of another program: a folder of folders
    (cache_dir / work / "bin").mkdir(parents=True)
    (cache_dir / work / "notes").write_bytes(bytes(1000))
    for name in (live, dead, ".making-of-my-film", "holiday"):
        (cache_dir / name).mkdir()
        (cache_dir / name / "index.json").write_text("mine")
        (cache_dir / name / "pixels.npy").write_bytes(bytes(1000))
    limit = 3 * (8 * 6 * 3 + 64) + 512
    with FileLock(cache_dir / f"{in_use}.lock"), FileLock(cache_dir / f"{'a' * 32}.lock"):
        done = threading.Thread(target=cached_pixels, args=(pictures[2:5], SMALL, cache_dir, limit))
        done.start()
        done.join(20)
    assert not done.is_alive()
    left = entries(cache_dir)
    assert {in_use, live, ".making-of-my-film", "holiday", work} < left
    assert dead not in left
    assert len(left) == 6
    cached_pixels(pictures[3:6], SMALL, cache_dir, limit)  # now nobody holds them
    left = entries(cache_dir)
    assert {".making-of-my-film", "holiday", work} < left
    assert not {in_use, live} & left
    assert len(left) == 4


def test_a_limit_below_the_need_is_told(tmp_path, pictures):
    with pytest.raises(StorageError, match=r"more than the cache's limit of .*max_cache_gb"):
        cached_pixels(pictures, SMALL, tmp_path / "cache", 7 * 8 * 6 * 3 - 1)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_can_not_be_written_is_named(tmp_path, pictures):
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=f"can't write the picture cache in {place}"):
            cached_pixels(pictures, SMALL, place, PLENTY)
        with pytest.raises(StorageError, match=f"can't write the picture cache in {place}"):
            module.room_bytes(place, PLENTY)
    assert (tmp_path / "file").read_text() == "in the way"


WORKER = """
import json, os, resource, signal, sys, time
from pathlib import Path
from vitreous.data.cache import cached_pixels
from vitreous.data.preprocess import Preprocess
from vitreous.errors import StorageError
folder, cache, mode = sys.argv[1:]
paths = sorted(Path(folder).rglob("*.png"))
steps = []
def progress(*words):
    steps.append(words)
    if mode == "die" and words[0] == "decoding":
        os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
sys.stdin.readline()
if mode == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    pixels = cached_pixels(paths, Preprocess(image_size=(16, 16)), Path(cache), 10**9, progress)
    built = any(words[0] == "decoding" for words in steps)
    print(json.dumps([built, pixels.array.tobytes().hex(), pixels.fingerprints]))
except StorageError as error:
    print(json.dumps(str(error)))
"""


class Workers:
    """Other processes that build the same entry: all ready before the first one begins."""

    def __init__(self, folder: Path, cache_dir: Path, *modes: str) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(folder), str(cache_dir), mode],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for mode in modes
        ]  # fmt: skip
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"

    def results(self) -> list:
        for process in self.processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0] for process in self.processes]
        return [json.loads(output) if output else None for output in outputs]


def test_two_processes_at_once_build_one_entry(tmp_path, class_folder):
    folder = class_folder(tmp_path / "pictures", {"a": 150, "b": 150})
    one, other = Workers(folder, tmp_path / "cache", "build", "build").results()
    assert {one[0], other[0]} == {True, False}  # one builds while the other waits
    assert one[1:] == other[1:]
    paths = sorted(folder.rglob("*.png"))
    by_hand = [fit(read_picture(path), Preprocess(image_size=(16, 16))) for path in paths]
    assert bytes.fromhex(one[1]) == np.stack(by_hand).tobytes()
    assert len(entries(tmp_path / "cache")) == 1


def test_a_full_disk_and_a_killed_build_lose_nothing(tmp_path, pictures, snapshot):
    folder, cache_dir = tmp_path / "pictures", tmp_path / "cache"
    before = snapshot(folder)
    (message,) = Workers(folder, cache_dir, "full").results()
    assert message.startswith(f"can't write the picture cache in {cache_dir}: File too large")
    assert "--cache" in message
    assert "\n" not in message
    assert entries(cache_dir) == set()
    workers = Workers(folder, cache_dir, "die")
    assert workers.results() == [None]
    assert workers.processes[0].returncode < 0
    (leftover,) = entries(cache_dir)
    assert leftover.startswith(".making-")
    # The same entry's build isn't hindered by it, and another entry's build sweeps it away.
    settings = Preprocess(image_size=(16, 16))
    assert cached_pixels(pictures, settings, cache_dir, PLENTY).errors == {}
    assert entries(cache_dir) == {leftover.removeprefix(".making-")}
    (cache_dir / leftover).mkdir()
    cached_pixels(pictures, SMALL, cache_dir, PLENTY)
    assert leftover not in entries(cache_dir)
    assert snapshot(folder) == before


def test_a_really_full_disk(tmp_path, pictures):
    place = tmp_path / "mounted"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        with pytest.raises(StorageError, match="No space left on device"):
            cached_pixels(pictures, Preprocess(image_size=(64, 64)), place, PLENTY)
        assert entries(place) == set()
        assert cached_pixels(pictures, SMALL, place, PLENTY).errors == {}
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_threads_at_once_build_one_entry(tmp_path, pictures, decoded):
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                cached_pixels(pictures, SMALL, tmp_path / "cache", PLENTY)
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 4
    assert all(same(results[0], other) for other in results)
    assert len(decoded) == len(pictures)
