"""The run folder: one training run on disk, made whole, locked while in use.

config.toml          every setting, exactly
choice.json          why the recipe chose them: setting, value, reason
split.csv            which picture went where
overlay.csv          changes to what the source lists, where there are any
data.json            fingerprint of the pictures, to notice a change before resuming
plan.json            number of steps; with a time budget, what was measured
metrics.jsonl        a line for each validation and each few steps
best.safetensors     weights with the best validation score: the ones to use
last.safetensors     weights at the end
checkpoints/         what resuming needs
evaluation.json      the final score
report.html          the same for people
reconstructions.png  instead of it behind pretraining: pictures, masked, filled in
provenance.json      versions, device and peak memory
"""

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from vitreous.core.files import storage_errors
from vitreous.errors import RunError

_PACKAGES = ("vitreous", "torch", "numpy", "pillow", "safetensors", "scikit-learn")


class RunFolder:
    """A run's files by name; makes and locks the folder, knows nothing of what is in the files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.choice = path / "choice.json"
        self.split = path / "split.csv"
        self.overlay = path / "overlay.csv"
        self.data = path / "data.json"
        self.plan = path / "plan.json"
        self.metrics = path / "metrics.jsonl"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.checkpoints = path / "checkpoints"
        self.evaluation = path / "evaluation.json"
        self.report = path / "report.html"
        self.reconstructions = path / "reconstructions.png"
        self.provenance = path / "provenance.json"

    @classmethod
    def create(cls, path: Path, files: Mapping[str, str]) -> "RunFolder":
        """Make the folder with its first files in one step.

        Args:
            path: must not exist, or be an empty folder.
            files: text by file name.

        Raises:
            RunError: where something stands there already.
            StorageError: where it can't be written.
        """
        check_free(path)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
            try:
                for name, text in files.items():
                    # A path that is no UTF-8 has lone surrogates, which stand for its bytes.
                    (staging / name).write_text(text, "utf-8", "surrogateescape", newline="")
                (staging / "checkpoints").mkdir()
                staging.chmod(0o755)
                try:
                    # Renaming onto an empty folder is fine, onto a full one is refused.
                    staging.rename(path)
                except OSError:
                    check_free(path)
                    raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """A folder that exists.

        Raises:
            RunError: where it isn't a run.
        """
        run = cls(path)
        if not run.config.is_file():
            what = "is not a run folder (no config.toml)" if path.exists() else "does not exist"
            raise RunError(f"{path} {what}: name a folder that 'vitreous train' made")
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the lock of a dead process is no lock.

        Raises:
            RunError: where another process is at work in the folder.
        """
        lock = FileLock(self.path / ".lock")
        with storage_errors(self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunError(
                    f"{self.path} is in use by another process: wait for it, "
                    "or choose another --out"
                ) from None
        try:
            yield
        finally:
            lock.release()


def check_free(path: Path) -> None:
    """Refuse a place where something stands already.

    Raises:
        RunError: naming what stands there and how to go on.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if (path / "config.toml").exists():
        raise RunError(
            f"{path} is an existing run and is never overwritten: go on with it "
            f"(vitreous train --resume {path}) or choose another --out"
        )
    raise RunError(f"{path} exists already: choose another --out")


def first_free(path: Path) -> Path:
    """The path, or with the first number behind it that is free."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
