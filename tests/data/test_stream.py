"""Streaming from shards: the same pictures in an order of their own, here and over the network."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from vitreous.core.console import Console
from vitreous.data import remote, stream
from vitreous.data.cache import entry_bytes
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_dataset, open_unlabelled
from vitreous.data.decode import read_picture
from vitreous.data.folder import list_labelled, list_unlabelled
from vitreous.data.loader import TrainingOrder
from vitreous.data.packing import pack
from vitreous.data.preprocess import Preprocess
from vitreous.data.remote import SPOOL, source_path
from vitreous.data.shards import shard_of
from vitreous.data.stream import StreamedPixels, shuffled
from vitreous.errors import DataError

SMALL = Preprocess(image_size=(8, 8))


@pytest.fixture
def shards(class_folder, tmp_path):
    class_folder(tmp_path / "faces", {"cat": 40, "dog": 40})
    pack(tmp_path / "faces", tmp_path / "shards", shard_mb=0.004, console=Console(quiet=True))
    return tmp_path / "shards"


def opened(source, tmp_path, room_for=None, buffer=16, labelled=True):
    limit_gb = 1.0 if room_for is None else (entry_bytes(room_for, SMALL) + 1) / 1e9
    config = DataConfig(
        str(source), str(tmp_path / "cache"), max_cache_gb=limit_gb, shuffle_buffer=buffer
    )
    if labelled:
        return open_dataset(list_labelled(source), config, SMALL, seed=0)
    return open_unlabelled(list_unlabelled(source), config, SMALL, seed=0)


def rows(pictures):
    pixels, labels = pictures.batch(np.arange(len(pictures)))
    return pixels.numpy(), labels.tolist()


@pytest.mark.parametrize("room_for", [0, 5, 40])
def test_streamed_pictures_are_those_of_the_cache(room_for, shards, tmp_path):
    whole = opened(shards, tmp_path)
    streamed = opened(shards, tmp_path, room_for)
    assert isinstance(streamed.pixels.array, StreamedPixels)
    assert streamed.pixels.array.num_kept == room_for
    assert streamed.splits == whole.splits
    assert streamed.fingerprint() == whole.fingerprint()
    for name, pictures in whole.sets.items():
        pixels, labels = rows(streamed.sets[name])
        expected, truth = rows(pictures)
        assert np.array_equal(pixels, expected)
        assert labels == truth
    row = int(whole.sets["train"].rows[3])
    assert np.array_equal(streamed.pixels.array[row], whole.pixels.array[row])


def test_the_cache_keeps_first_what_is_seen_most(shards, tmp_path, monkeypatch):
    streamed = opened(shards, tmp_path, room_for=20)
    decoded = []
    real = stream.decode_fitted

    def counted(paths, *arguments, **options):
        decoded.extend(paths)
        return real(paths, *arguments, **options)

    monkeypatch.setattr(stream, "decode_fitted", counted)
    rows(streamed.sets["valid"])  # 16 of them
    assert decoded == []
    rows(streamed.sets["train"])
    assert len(decoded) == len(streamed.sets["train"]) - 4


def test_an_epoch_has_every_picture_once_and_stays_in_few_shards(shards, tmp_path):
    train = opened(shards, tmp_path, room_for=0).sets["train"]
    order = TrainingOrder(len(train), 4, 7, train.shuffle)
    steps = [order.step(step) for step in range(2 * len(train) // 4)]
    first = [at for step in steps[: len(train) // 4] for at in step]
    second = [at for step in steps[len(train) // 4 :] for at in step]
    assert sorted(first) == sorted(second) == list(range(len(train)))
    assert first != second
    # A window of 16 lies in the shards that 16 pictures in a row lie in, and no others.
    for begin in range(0, len(train), 16):
        window = [shard_of(train.paths[at]) for at in first[begin : begin + 16]]
        assert len(set(window)) <= 16 // 5 + 2
    assert len({shard_of(path) for path in train.paths}) > 6


def test_a_place_in_the_order_is_a_number(shards, tmp_path):
    """Whoever enters at a step sees what those saw who came from the beginning."""
    train = opened(shards, tmp_path, room_for=0).sets["train"]
    whole = TrainingOrder(len(train), 6, 3, train.shuffle)
    steps = [whole.step(step) for step in range(40)]
    again = opened(shards, tmp_path, room_for=30).sets["train"]  # more in the cache: no matter
    for step in (39, 17, 0):
        assert TrainingOrder(len(again), 6, 3, again.shuffle).step(step) == steps[step]
    assert TrainingOrder(len(train), 6, 4, train.shuffle).step(0) != steps[0]


def test_a_long_buffer_shuffles_all_among_one_another():
    numbers = np.repeat(np.arange(10), 100)
    _, order = shuffled(numbers, 10_000, np.random.default_rng(0))
    halves = numbers[order[:500]]
    counts = np.bincount(halves, minlength=10)
    # Drawn without replacement, 50 of each shard are expected, give or take 4.7 (hypergeometric).
    assert np.abs(counts - 50).max() < 5 * 4.7
    _, near = shuffled(numbers, 100, np.random.default_rng(0))
    assert len(set(numbers[near[:100]])) == 1


def test_tars_of_others_are_looked_at_once_and_streamed(photo, tmp_path):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with wds.TarWriter(str(tmp_path / "train-0.tar")) as writer:
        for number in range(30):
            writer.write({"__key__": f"{number:03}", "png": photo(9, 9, number), "cls": number % 2})
        writer.write({"__key__": "broken", "png": b"\x89PNG", "cls": 0})
    whole = opened(tmp_path / "train-0.tar", tmp_path)
    streamed = opened(tmp_path / "train-0.tar", tmp_path, room_for=0)
    assert len(streamed.unreadable) == len(whole.unreadable) == 1
    assert streamed.splits == whole.splits
    assert np.array_equal(rows(streamed.sets["train"])[0], rows(whole.sets["train"])[0])


def test_a_picture_lost_during_training_is_told(shards, tmp_path):
    train = opened(shards, tmp_path, room_for=0).sets["train"]
    for tar in shards.glob("*.tar"):
        tar.rename(tar.with_suffix(".gone"))
    with pytest.raises(DataError, match="no such file; it could be read before: put it back"):
        train.batch([0, 1])


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and notes what it was asked for."""

    asked: list[str] = []  # noqa: RUF012 (of the class, since each request has an object)

    def log_message(self, *_):
        self.asked.append(self.path)


@pytest.fixture
def server(shards):
    pytest.importorskip(
        "aiohttp", reason="aiohttp is not installed: pip install 'vitreous[stream]'"
    )
    Quiet.asked.clear()
    handler = partial(Quiet, directory=str(shards.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_shards_over_http_are_the_shards_here(server, shards, tmp_path):
    here = opened(shards, tmp_path, room_for=0)
    source = source_path(f"{server}/shards")
    there = opened(source, tmp_path, room_for=10)
    assert there.fingerprint() == here.fingerprint()
    train = there.sets["train"]
    order = TrainingOrder(len(train), 8, 0, train.shuffle)
    for step in range(2 * len(train) // 8):
        positions = order.step(step)
        assert np.array_equal(train.batch(positions)[0], here.sets["train"].batch(positions)[0])
    # Few copies at a time: twice what a window of the buffer spans, and a little more.
    assert len(SPOOL._copies) <= 2 * (16 // 5 + 3)
    pattern = source_path(f"{server}/shards/data-{{000000..000001}}.tar")
    assert len(list_labelled(pattern).samples) < len(here.listing.samples)


def test_far_shards_are_packed_one_behind_another(server, shards, tmp_path, monkeypatch):
    fetched, real = [], remote._fetch
    monkeypatch.setattr(remote, "_fetch", lambda path: fetched.append(path) or real(path))
    source = source_path(f"{server}/shards")
    found = pack(source, tmp_path / "again", shard_mb=0.008, console=Console(quiet=True))
    assert found.index["pictures"] == 80
    assert len(fetched) == len(set(fetched)) == len(list(shards.glob("*.tar"))) > 5


def test_a_few_pictures_of_far_shards_are_read_alone(server, shards, tmp_path):
    here = {sample.path.name: sample.path for sample in list_labelled(shards).samples}
    there = list_labelled(source_path(f"{server}/shards")).samples
    SPOOL.follow((), 1)
    fetched = len(SPOOL._copies)
    for sample in there[::9]:
        assert np.array_equal(read_picture(sample.path), read_picture(here[sample.path.name]))
    assert len(SPOOL._copies) == fetched


def test_a_shard_that_could_not_be_fetched_ahead_is_fetched_when_it_is_needed(
    server, shards, tmp_path, monkeypatch
):
    files = [source_path(f"{server}/shards/data-00000{n}.tar") for n in range(2)]
    real, fails = remote._fetch, [files[1]]

    def fetch(path):
        if path in fails:
            fails.remove(path)
            raise DataError("the network was gone for a moment")
        return real(path)

    monkeypatch.setattr(remote, "_fetch", fetch)
    spool = remote.Spool()
    spool.follow(files, 1)
    spool.open(files[0]).read()
    spool._copies[files[1]].exception()  # waits until it is known
    assert spool.open(files[1]).read() == (shards / "data-000001.tar").read_bytes()


def test_a_little_less_room_keeps_the_same_pictures(shards, tmp_path):
    kept = [opened(shards, tmp_path, room_for=count).pixels.array.num_kept for count in (24, 21)]
    assert kept == [20, 20]


def test_what_is_not_there_is_told(server, tmp_path):
    with pytest.raises(DataError, match=r"no index.json at http://127.0.0.1:\d+/nowhere"):
        list_labelled(source_path(f"{server}/nowhere"))
    with pytest.raises(DataError, match=r"no file at http://127\.0\.0\.1:"):
        list_labelled(source_path(f"{server}/shards/none-{{0..1}}.tar"))


def test_shards_in_s3(shards, tmp_path, monkeypatch):
    """Against moto's server, as a bucket somewhere is."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'vitreous[stream]'")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3
    import fsspec

    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        for path in shards.iterdir():
            client.upload_file(str(path), "bucket", f"shards/{path.name}")
        fsspec.filesystem("s3").clear_instance_cache()
        there = opened(source_path("s3://bucket/shards"), tmp_path, room_for=3)
        here = opened(shards, tmp_path, room_for=0)
        assert there.fingerprint() == here.fingerprint()
        positions = np.arange(len(here.sets["train"]))
        assert np.array_equal(
            there.sets["train"].batch(positions)[0], here.sets["train"].batch(positions)[0]
        )
        every = list_labelled(source_path("s3://bucket/shards/data-*.tar"))
        assert len(every.samples) == len(here.listing.samples)
    finally:
        server.stop()
        fsspec.filesystem("s3").clear_instance_cache()


def test_a_path_that_stands_for_a_url_stays_one():
    assert source_path("s3://bucket/shards/") == Path("s3:/bucket/shards")
    assert source_path("faces").is_absolute()
    assert source_path("c:/faces").is_absolute()
