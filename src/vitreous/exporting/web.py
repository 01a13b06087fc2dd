"""A static folder that classifies in the visitor's browser: page, sealed file and its runtime.

The page and its engine are `pages.classify`; the runtime is onnxruntime-web, of one version whose
files are known by their hashes. It is downloaded where a person doesn't name a copy.
"""

import hashlib
import io
import json
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from platformdirs import user_cache_path

from vitreous.core.console import Console
from vitreous.core.files import atomic_path, new_folder, storage_errors
from vitreous.errors import ConfigError, StorageError
from vitreous.exporting.contract import KEY
from vitreous.exporting.sealed_file import SealedFile
from vitreous.pages.classify import FOLDER, page_files

VERSION = "1.30.0"
_ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
_LARGEST_BYTES = 100_000_000
_TIMEOUT_S = 60
#: SHA-256 of the files that one thread of WebAssembly takes, by their names in the package.
SUMS = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
_LICENSE = Path(__file__).parent / "onnxruntime-web.LICENSE.txt"


def write_site(sealed: SealedFile, runtime: Path, site: Path) -> None:
    """Write a folder that any host of static files can serve.

    Args:
        sealed: what classifies; the file is copied, and what it says of itself put beside it.
        runtime: folder of `find_runtime`.
        site: the new folder.

    Raises:
        StorageError: where it can't be written, or something stands there.
    """
    with new_folder(site) as staging:
        for name, content in page_files("local").items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_bytes(content)
        there = staging / FOLDER / "runtime"
        there.mkdir()
        for name in SUMS:
            # Some hosts don't know `.mjs`, and browsers run no module of a kind unknown.
            shutil.copyfile(runtime / name, there / name.replace(".mjs", ".js"))
        shutil.copyfile(_LICENSE, there / "LICENSE.txt")
        shutil.copyfile(sealed.path, staging / "model.onnx")
        said = json.loads(sealed.contract.to_metadata()[KEY])
        text = json.dumps(said, ensure_ascii=False, indent=1)
        (staging / "model.json").write_text(text, encoding="utf-8")


def find_runtime(folder: Path | None, console: Console) -> Path:
    """A folder with the runtime's files, each of them as it should be.

    Args:
        folder: a copy of the package: unpacked, or its folder ``dist``; ``None`` to take what was
            downloaded earlier, or else download it.
        console: is told of a download before it begins.

    Raises:
        ConfigError: where a file isn't there or isn't the one of `VERSION`.
        StorageError: where it can't be downloaded or kept.
    """
    if folder is not None:
        inside = next((one for one in _inside(folder) if (one / next(iter(SUMS))).exists()), folder)
        if wrong := _wrong(inside):
            raise ConfigError(
                f"{inside / wrong} is not that of onnxruntime-web {VERSION}: get it by "
                f"npm pack onnxruntime-web@{VERSION}, unpack it and name the folder"
            )
        return inside
    kept = runtime_folder()
    if _wrong(kept):
        console.info(f"downloading onnxruntime-web {VERSION} (33 MB) from {_ADDRESS}")
        _unpack(_download(), kept)
    return kept


def runtime_folder() -> Path:
    """Where the runtime is kept once it has been downloaded."""
    return user_cache_path("vitreous") / f"onnxruntime-web-{VERSION}"


def _inside(folder: Path) -> list[Path]:
    return [folder, folder / "dist", folder / "package" / "dist"]


def _wrong(folder: Path) -> str | None:
    """The first of the files that is missing or another one."""
    for name, wanted in SUMS.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return name
        if found != wanted:
            return name
    return None


def _download() -> bytes:
    offline = "without a network, name a copy with --runtime FOLDER"
    try:
        with urllib.request.urlopen(_ADDRESS, timeout=_TIMEOUT_S) as response:
            content = response.read(_LARGEST_BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise StorageError(f"can't download {_ADDRESS} ({reason}): {offline}") from None
    if len(content) > _LARGEST_BYTES:
        raise StorageError(f"{_ADDRESS} is larger than it should be: {offline}")
    return content


def _unpack(package: bytes, folder: Path) -> None:
    """Keep the files that are needed; one that is another than it should be is not kept."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
            for name, wanted in SUMS.items():
                member = archive.extractfile(f"package/dist/{name}")
                content = member.read(_LARGEST_BYTES) if member else b""
                if hashlib.sha256(content).hexdigest() != wanted:
                    raise StorageError(f"{name} of {_ADDRESS} is not the one that it should be")
                with atomic_path(folder / name) as staging:
                    staging.write_bytes(content)
    except (tarfile.TarError, zlib.error, KeyError, EOFError) as error:
        raise StorageError(f"{_ADDRESS} is no such package: {error}") from None
