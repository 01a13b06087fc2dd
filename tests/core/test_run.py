import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitreous.core.run import RunFolder, check_free, run_of
from vitreous.errors import RunError, StorageError

HOLD = """
import sys, time
from pathlib import Path
from vitreous.core.run import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "a", {"config.toml": "x = 1\n"})


def test_a_run_appears_whole(run):
    assert {path.name for path in run.path.iterdir()} == {"checkpoints", "config.toml"}
    assert list(run.path.parent.iterdir()) == [run.path]


def test_an_existing_run_is_never_overwritten(run):
    with pytest.raises(RunError, match=f"--resume {run.path}"):
        RunFolder.create(run.path, {"config.toml": "other"})
    assert run.config.read_text() == "x = 1\n"


def test_any_other_full_folder_is_refused_too(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        check_free(tmp_path)
    with pytest.raises(RunError, match="exists already"):
        check_free(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", [".", "..", ""])
def test_a_folder_needs_a_name_to_be_put_in_its_place(name, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(RunError, match="give it one, --out"):
        check_free(Path(name))


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty", {"config.toml": ""}).config.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't write"):
        RunFolder.create(tmp_path / "file" / "run", {})


@pytest.mark.parametrize("name", ["missing", "other"])
def test_a_folder_that_is_no_run_is_named(tmp_path, name):
    (tmp_path / "other").mkdir()
    with pytest.raises(RunError, match=name):
        RunFolder.open(tmp_path / name)


def test_a_run_in_use_is_refused_until_its_process_dies(run):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunError, match="in use by another process"), run.locked():
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with run.locked():
                return
        except RunError:
            time.sleep(0.05)
    pytest.fail("the lock of a dead process stayed")


def test_a_home_folder_that_no_shell_has_named_is_not_made():
    with pytest.raises(RunError, match=f"a folder called ~ here: give {Path.home()}/runs/a"):
        check_free(Path("~/runs/a"))


def test_a_command_is_printed_as_it_has_to_be_typed(tmp_path):
    run = RunFolder.create(tmp_path / "my faces", {"config.toml": "x = 1\n"})
    with pytest.raises(RunError, match=f"--resume '{run.path}'\\)"):
        check_free(run.path)


def test_the_run_around_a_rung_or_a_fold_has_its_pictures(tmp_path):
    run = tmp_path / "folds" / "a"  # called like the folder of a run's folds
    inner = [
        run,
        run / "rungs" / "full",
        run / "folds" / "1-2",
        run / "folds" / "3" / "rungs" / "x",
    ]
    for folder in (*inner, tmp_path / "rungs" / "alone"):
        folder.mkdir(parents=True)
    (run / "split.csv").touch()
    assert [run_of(folder / "best.safetensors").path for folder in inner] == [run] * 4
    assert run_of(tmp_path / "rungs" / "alone" / "best.safetensors") is None
