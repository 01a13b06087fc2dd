"""The runtime of a web export: downloaded once, from a stand-in for npm's registry on loopback."""

import functools
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vitreous.core.console import Console
from vitreous.errors import ConfigError, StorageError
from vitreous.exporting import web

RUNTIME = web.runtime_folder()  # asked before a test has a cache folder of its own
QUIET = Console(quiet=True)
has_runtime = pytest.mark.skipif(
    not all((RUNTIME / name).exists() for name in web.SUMS),
    reason=f"onnxruntime-web {web.VERSION} is missing in {RUNTIME}: make runtime",
)


@contextmanager
def registry(monkeypatch, folder: Path) -> Iterator[list[str]]:
    """Serves ``package.tgz``; what was asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/package.tgz"
        monkeypatch.setattr(web, "_ADDRESS", address)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


def pack(folder: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(folder / "package.tgz", "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@has_runtime
def test_it_is_downloaded_once_and_said_before(monkeypatch, tmp_path, capsys):
    pack(tmp_path, {name: (RUNTIME / name).read_bytes() for name in web.SUMS})
    with registry(monkeypatch, tmp_path) as asked:
        found = web.find_runtime(None, Console())
        assert found == web.find_runtime(None, Console())
        assert asked == ["/package.tgz"]
        (found / "ort.wasm.min.mjs").write_text("damaged")
        web.find_runtime(None, QUIET)
        assert len(asked) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"downloading onnxruntime-web {web.VERSION} (33 MB) from http://127.")
    assert {path.name for path in found.iterdir()} == set(web.SUMS)
    for name in web.SUMS:
        assert (found / name).read_bytes() == (RUNTIME / name).read_bytes()


@has_runtime
def test_a_copy_is_taken_packed_out_or_as_its_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    for name in web.SUMS:
        (dist / name).write_bytes((RUNTIME / name).read_bytes())
    for named in (tmp_path, tmp_path / "package", dist):
        assert web.find_runtime(named, QUIET) == dist
    (dist / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(ConfigError, match=r"ort-wasm-simd-threaded\.wasm is not that of"):
        web.find_runtime(tmp_path, QUIET)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (dict.fromkeys(web.SUMS, b"something else"), "is not the one that it should be"),
        ({"other.mjs": b""}, "is no such package"),
        (None, "is no such package"),
    ],
)
def test_what_is_not_the_runtime_is_not_kept(monkeypatch, tmp_path, files, reason):
    if files is None:
        (tmp_path / "package.tgz").write_bytes(b"no archive")
    else:
        pack(tmp_path, files)
    with registry(monkeypatch, tmp_path), pytest.raises(StorageError, match=reason):
        web.find_runtime(None, QUIET)
    assert not list(web.runtime_folder().iterdir())


def test_without_a_network_it_says_what_to_do(monkeypatch, tmp_path):
    with (
        registry(monkeypatch, tmp_path),
        pytest.raises(StorageError, match="without a network, name a copy with --runtime FOLDER"),
    ):
        web.find_runtime(None, QUIET)
