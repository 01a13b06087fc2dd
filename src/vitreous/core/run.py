"""The run folder: one training run on disk, made whole, locked while in use.

config.toml          every setting, exactly
choice.json          why the recipe chose them: setting, value, reason
split.csv            which picture went where
overlay.csv          changes to what the source lists, where there are any
findings.json        what is wrong with the pictures, where that was looked for
data.json            fingerprint of the pictures, to notice a change before resuming
plan.json            number of steps; with a time budget, what was measured
launch.txt           the launch of torchrun that began it, where there was one
metrics.jsonl        a line for each validation and each few steps
best.safetensors     the weights to use: during training those that validated best so far
kept.json            whether they are the last ones in the end, and why
calibration.safetensors  what pictures held out say about how far they can be trusted
last.safetensors     weights at the end
checkpoints/         what resuming needs
ladder.json          of a fine-tuned run: what each rung scored, and which was kept
rungs/               of those, each as far as it goes a run's files again
features.safetensors of a rung: what the layers before the head make of each picture
answers.safetensors  of a rung or a fold: what it answered
folds.json           of a cross-validated run: what each fold scored, and all together
folds.safetensors    what was answered for each picture by the folds that it was held out of
folds/               of those, each as far as it goes a run's files again
evaluation.json      the final score
diagnosis.json       why it is stuck, where it is
report.html          the same for people
reconstructions.png  instead of it behind pretraining: pictures, masked, filled in
provenance.json      versions, code and device, of the beginning and where they changed; peak memory
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote

from filelock import FileLock, Timeout

from vitreous.core.files import new_folder, remove_unfinished, storage_errors
from vitreous.errors import RunError, StorageError

_PACKAGES = ("vitreous", "torch", "numpy", "pillow", "safetensors", "scikit-learn")


class RunFolder:
    """A run's files by name; makes and locks the folder, knows nothing of what is in the files.

    Args:
        path: of the folder.
        whole: the run's folder where this one is a rung or a fold of it.
    """

    def __init__(self, path: Path, whole: Path | None = None) -> None:
        self.path, self.whole = path, whole or path
        self.config = path / "config.toml"
        self.choice = path / "choice.json"
        self.split = path / "split.csv"
        self.overlay = path / "overlay.csv"
        self.findings = path / "findings.json"
        self.data = path / "data.json"
        self.plan = path / "plan.json"
        self.metrics = path / "metrics.jsonl"
        self.best = path / "best.safetensors"
        self.kept = path / "kept.json"
        self.last = path / "last.safetensors"
        self.checkpoints = path / "checkpoints"
        self.ladder = path / "ladder.json"
        self.rungs = path / "rungs"
        self.features = path / "features.safetensors"
        self.answers = path / "answers.safetensors"
        self.folds = path / "folds.json"
        self.fold_answers = path / "folds.safetensors"
        self.evaluation = path / "evaluation.json"
        self.diagnosis = path / "diagnosis.json"
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
        try:
            with new_folder(path) as staging:
                for name, text in files.items():
                    # A path that is no UTF-8 has lone surrogates, which stand for its bytes.
                    (staging / name).write_text(text, "utf-8", "surrogateescape", newline="")
                (staging / "checkpoints").mkdir()
        except StorageError:
            check_free(path)  # another may have taken the place meanwhile
            raise
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """A folder that exists.

        Raises:
            RunError: where it isn't a run.
        """
        # A report has its run's name, and the command that trains anew names another beside it.
        run = cls(path.resolve() if path.name in ("", "..") else path)
        if not run.config.is_file():
            what = "is not a run folder (no config.toml)" if path.exists() else "does not exist"
            raise RunError(f"{path} {what}: name a folder that 'vitreous train' made")
        return run

    def rung(self, name: str) -> "RunFolder":
        """The folder of a rung, made where there is none; it has no settings of its own.

        Raises:
            StorageError: where it can't be written.
        """
        return self._inner(self.rungs / name)

    def fold(self, name: str) -> "RunFolder":
        """The same of a fold."""
        return self._inner(self.path / "folds" / name)

    def _inner(self, path: Path) -> "RunFolder":
        inner = RunFolder(path, self.whole)
        with storage_errors(path):
            inner.checkpoints.mkdir(parents=True, exist_ok=True)
        return inner

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the lock of a dead process is no lock.

        What such a process was about to write is removed.

        Raises:
            RunError: where another process is at work in the folder.
            StorageError: where the folder can't be written.
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
            remove_unfinished(self.path)
            yield
        finally:
            lock.release()


def run_of(weights: Path) -> RunFolder | None:
    """The run whose pictures a file of weights has learned from; ``None`` where it lies in none.

    Of weights of a rung or a fold it is the run around those.
    """
    folder = weights.resolve().parent
    while not RunFolder(folder).split.exists():
        if folder.parent.name not in ("rungs", "folds"):
            return None
        folder = folder.parent.parent
    return RunFolder(folder)


def check_name(path: Path) -> None:
    """Refuse a run's place that its weights couldn't be read from in the end.

    Raises:
        RunError: for a path that is no UTF-8, which safetensors doesn't open.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise RunError(
            f"{path} is no UTF-8, and weights can't be read from such a place: name another --out"
        ) from None


def check_free(path: Path) -> None:
    """Refuse a place where something stands already, or that only a shell understands.

    Raises:
        RunError: naming what stands there and how to go on.
    """
    if path.parts[:1] == ("~",):
        raise RunError(f"{path} would be a folder called ~ here: give {path.expanduser()}")
    if path.name in ("", ".."):  # it is made elsewhere and put there when it is whole
        raise RunError(f"{path} is no name for a new folder: give it one, --out {path / 'NAME'}")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if (path / "config.toml").exists():
        raise RunError(
            f"{path} is an existing run and is never overwritten: go on with it "
            f"(vitreous train --resume {quote(str(path))}) or choose another --out"
        )
    raise RunError(f"{path} exists already: choose another --out")


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def code_fingerprint() -> str:
    """Equal for equal source files of this package, whatever its version says."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
