"""Every mistake a person can make is one clear line and status 2; nothing is lost."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from vitreous.cli import _status
from vitreous.data.faces import write_faces

FAST = ("--epochs", "1", "--set", "train.batch_size=8", "--set", "model.depth=1",
        "--set", "model.embed_dim=16", "--set", "model.num_heads=1",
        "--set", "model.stem=[4,8,16]")  # fmt: skip


@pytest.fixture
def pictures(tmp_path) -> Path:
    write_faces(tmp_path / "pictures", 12, size=32, seed=5)
    return tmp_path / "pictures"


def refused(result, *words: str) -> None:
    assert result.exit_code == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    for word in words:
        assert word in lines[-1]
    assert result.stdout == ""


def test_an_empty_class(vitreous, pictures, tmp_path):
    (pictures / "bored").mkdir()
    (pictures / "bored" / "IMG_1.HEIC").write_bytes(b"not read")
    words = "'bored' is empty", "convert others, such as .heic, to JPEG"
    refused(vitreous("train", pictures, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_a_single_class(vitreous, pictures, tmp_path):
    for name in ("sad", "angry"):
        shutil.rmtree(pictures / name)
    refused(vitreous("train", pictures, "--out", tmp_path / "run"), "single class 'happy'")


def test_a_class_in_valid_that_train_lacks(vitreous, pictures, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(pictures, tmp_path / "split" / split)
    (tmp_path / "split" / "val" / "sad").rename(tmp_path / "split" / "val" / "sed")
    result = vitreous("train", tmp_path / "split", "--out", tmp_path / "run")
    refused(result, "class 'sed'", "did you mean 'sad'?")


def test_unreadable_files_are_listed_counted_and_left_out(vitreous, pictures, tmp_path):
    good = (pictures / "happy" / "00000.png").read_bytes()
    bad = {
        "text.jpg": b"this is a text",
        "zero.png": b"",
        "cut.png": good[: len(good) // 2],
    }
    for name, content in bad.items():
        (pictures / "happy" / name).write_bytes(content)
    (pictures / "happy" / "IMG_1.HEIC").write_bytes(b"not read")
    bomb = Image.new("1", (1, 1))
    bomb.save(pictures / "happy" / "bomb.png")
    raw = bytearray((pictures / "happy" / "bomb.png").read_bytes())
    raw[16:24] = (50_000).to_bytes(4, "big") * 2  # two gigapixels, by its header
    import zlib

    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    (pictures / "happy" / "bomb.png").write_bytes(raw)
    result = vitreous("train", pictures, "--out", tmp_path / "run", *FAST)
    assert result.exit_code == 0, result.stderr
    for name in (*bad, "bomb.png"):
        assert result.stderr.count(f"/{name}: ") == 1
    assert f"{pictures / 'happy' / 'IMG_1.HEIC'}: convert them to JPEG" in result.stderr
    with (tmp_path / "run" / "split.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 40
    found = json.loads(vitreous("evaluate", tmp_path / "run", pictures, "--json").stdout)
    assert found["n"] == 36
    assert {Path(item["file"]).name for item in found["unreadable"]} == {*bad, "bomb.png"}
    assert "megapixels" in json.dumps(found["unreadable"])


def test_a_class_of_which_nothing_can_be_read(vitreous, pictures, tmp_path):
    for path in (pictures / "sad").iterdir():
        path.write_bytes(b"")
    result = vitreous("train", pictures, "--out", tmp_path / "run")
    refused(result, "class 'sad' has no readable")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "train.learnin_rate=1"), "did you mean 'learning_rate'?"),
        (("--set", "train.epochs=many"), "'train.epochs' is 'many', not a number"),
        (("--set", "nonsense"), "write section.name=value"),
        (("--model", "S/17"), "did you mean 'S/16'?"),
        (("--image-size", "50"), "not a multiple of the patch size"),
        (("--budget", "soon"), "budget 'soon' is not a time"),
        (("--budget", "1m", "--epochs", "2"), "exclude each other"),
        (("--config", "missing.toml"), "no configuration file"),
        (("--weights", "imagenet"), "imagenet does not exist"),
        (("--set", "train.device=tpu"), "allowed: auto, cpu, cuda, mps"),
        (("--device", "mps"), "device 'mps' is not available here: this machine has"),
        (("--set", "model=S/16"), "setting 'model' is a section, not 'S/16'"),
        (("--set", "data.max_cache_gb=1e-9"), "max_cache_gb"),
    ],
)
def test_a_wrong_setting(vitreous, pictures, tmp_path, arguments, words):
    result = vitreous("train", pictures, "--out", tmp_path / "run", *arguments)
    assert words in result.stderr
    assert result.exit_code == (1 if "max_cache_gb" in words else 2)
    assert not (tmp_path / "run").exists()


def test_too_little_memory_is_one_line(capsys):
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert _status(fail) == 1
    assert capsys.readouterr().err == (
        "error: memory is too small for this: close other programs, compute elsewhere (--device), "
        "or take a smaller model\n"
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        _status(lambda: exec("raise RuntimeError('shapes differ')"))


def test_places_that_are_not_there(vitreous, run, faces, tmp_path):
    refused(vitreous("train", tmp_path / "gone"), "no folder or table at")
    refused(vitreous("predict", run, tmp_path / "gone.jpg"), "no file or folder at")
    refused(vitreous("predict", tmp_path / "gone", faces / "test"), "does not exist")
    refused(vitreous("evaluate", run, tmp_path / "gone"), "no folder or table at")
    refused(vitreous("train", "--resume", tmp_path), "is not a run folder")


def test_a_run_that_may_not_be_entered_is_one_line(capsys):
    def refuse():
        raise PermissionError(13, "Permission denied", "/home/other/runs/a/config.toml")

    assert _status(refuse) == 2
    said = capsys.readouterr().err
    assert said == "error: can't read /home/other/runs/a/config.toml: Permission denied\n"


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("split.csv", "\ufeffpath;label;split\na;b;train\n", "evaluate RUN FACES"),
        ("split.csv", "path,label,split\na,b\n", "evaluate RUN FACES"),
        ("split.csv", "path,label,split\na,b,train,comma\n", "evaluate RUN FACES"),
        ("data.json", "[]", "evaluate RUN"),
        ("evaluation.json", "{}", "export RUN -o OUT"),
    ],
)
def test_files_of_a_run_that_were_changed_are_named(
    vitreous, run, faces, tmp_path, name, text, command
):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / name).write_text(text)
    places = {"RUN": copy, "FACES": faces, "OUT": tmp_path / "a.onnx"}
    result = vitreous(*(places.get(word, word) for word in command.split()))
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert str(copy) in result.stderr


def test_an_existing_run_is_never_overwritten(vitreous, run, faces):
    before = (run / "best.safetensors").read_bytes()
    refused(vitreous("train", faces, "--out", run), "existing run", f"--resume {run}")
    assert (run / "best.safetensors").read_bytes() == before


def test_a_class_that_the_model_does_not_know(vitreous, run, pictures):
    (pictures / "sad").rename(pictures / "bored")
    refused(vitreous("evaluate", run, pictures), "class 'bored'", "angry, happy, sad")


def test_a_damaged_weights_file(vitreous, run, tmp_path, faces):
    copy = tmp_path / "w.safetensors"
    copy.write_bytes((run / "best.safetensors").read_bytes()[:5000])
    refused(vitreous("predict", copy, faces / "test"), "w.safetensors is damaged")


def test_pictures_that_changed_since_the_run_began(vitreous, pictures, tmp_path):
    path = tmp_path / "run"
    assert vitreous("train", pictures, "--out", path, *FAST).exit_code == 0
    (path / "evaluation.json").unlink()
    (pictures / "sad" / "00000.png").unlink()
    said = f"1 gone, such as {pictures / 'sad' / '00000.png'}): put them back as they were"
    refused(vitreous("train", "--resume", path), "are not those that", "began with", said)


def test_a_run_in_use_by_another_process(vitreous, run, tmp_path):
    stopped = shutil.copytree(run, tmp_path / "stopped")
    (stopped / "evaluation.json").unlink()
    hold = (
        "import sys, time; from pathlib import Path; from vitreous.core.run import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(stopped)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            refused(vitreous("train", "--resume", stopped), "in use by another process")
        finally:
            holder.kill()


def test_ctrl_c_saves_and_says_how_to_go_on(pictures, tmp_path):
    program = Path(sys.executable).parent / "vitreous"
    options = ["--out", tmp_path / "run", "--cache", tmp_path / "cache", *FAST]
    command = [program, "train", pictures, *options, "--epochs", "2000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            metrics = tmp_path / "run" / "metrics.jsonl"
            deadline = time.monotonic() + 120
            while not (metrics.exists() and metrics.stat().st_size):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            os.kill(process.pid, signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"Go on with: vitreous train --resume {tmp_path / 'run'}" in stderr
    assert "Traceback" not in stderr
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_soft_labels_need_votes(vitreous, pictures, tmp_path):
    soft = ("--set", "train.soft_labels=true")
    result = vitreous("train", pictures, "--out", tmp_path / "run", *FAST, *soft)
    refused(result, "name a table with the columns votes_angry, votes_happy, votes_sad")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_in_one_line_and_the_run_can_go_on(pictures, tmp_path):
    """A limit on the size of files stands for the full disk: writing fails in the same place."""
    path = tmp_path / "run"
    arguments = ["train", str(pictures), "--out", str(path), "--cache", str(tmp_path / "cache")]
    script = (
        "import resource, signal, sys; from vitreous.cli import _status, cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limit = int(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "sys.exit(_status(lambda: cli.main(sys.argv[2:], standalone_mode=False)))"
    )
    limit = 36 * 32 * 32 * 3 + 200  # room for the cache, not for a checkpoint
    done = subprocess.run(
        [sys.executable, "-c", script, str(limit), *arguments, *FAST,
         "--set", "model.embed_dim=64"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    # The look before training needs room as well, but training can do without it.
    assert "weren't looked at for faults" in done.stderr
    assert f"can't write {path}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "vitreous", "train", "--resume", path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert (path / "report.html").exists()


def test_a_run_among_its_own_pictures_is_refused(vitreous, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures)
    for command in ("train", "pretrain"):
        refused(vitreous(command, "."), "lies among the pictures")
    refused(vitreous("train", pictures, "--out", pictures / "run"), "lies among the pictures")
    assert {path.name for path in pictures.iterdir()} == {"angry", "happy", "sad"}


def test_ctrl_c_behind_training_says_how_to_go_on(vitreous, pictures, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vitreous.supervised.calibrate_run", stop)
        result = vitreous("train", pictures, "--out", tmp_path / "run", *FAST)
    assert result.exit_code == 130
    assert f"Go on with: vitreous train --resume {tmp_path / 'run'}" in result.stderr
    assert vitreous("train", "--resume", tmp_path / "run").exit_code == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_ctrl_c_before_the_run_has_begun_promises_no_run(vitreous, pictures, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vitreous.job.open_pictures", stop)
    result = vitreous("train", pictures, "--out", tmp_path / "run", *FAST)
    assert result.exit_code == 130
    assert "nothing to go on with: give the same command again" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_class_with_one_picture_is_refused_before_any_is_read(vitreous, pictures, tmp_path):
    for path in sorted((pictures / "sad").iterdir())[1:]:
        path.unlink()
    words = "has 1 picture of class 'sad': it takes at least 2, one to learn from and one to check"
    refused(vitreous("train", pictures, "--out", tmp_path / "run", *FAST), words)
    # Those held back are named, and one to learn from is enough.
    for path in sorted(pictures.iterdir()):
        (pictures / "train").mkdir(exist_ok=True)
        path.rename(pictures / "train" / path.name)
    shutil.copytree(pictures / "train", pictures / "valid")
    result = vitreous("train", pictures, "--out", tmp_path / "run", *FAST)
    assert result.exit_code == 0, result.stderr


def test_a_home_folder_is_meant_behind_an_equals_sign_too(
    vitreous, pictures, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    picture = pictures / "happy" / "00000.png"
    result = vitreous(
        "patches", picture, "--size", "8", "--image-size", "32", "--out=~/patches.png"
    )
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "home" / "patches.png").exists()


def test_loose_pictures_are_called_so(vitreous, pictures, tmp_path):
    shutil.copy(pictures / "happy" / "00000.png", pictures / "loose.png")
    (pictures / "notes.txt").write_text("a word")
    said = vitreous("train", pictures, "--out", tmp_path / "run", *FAST).stderr
    assert (
        f"outside the folders of classes are left out, 1 in all, such as {pictures / 'loose.png'}"
        in said
    )
    assert (
        f"not pictures by their names are left out, 1 in all, such as {pictures / 'notes.txt'}"
        in said
    )


def test_a_pattern_that_nothing_matches_is_no_word_of_shards(vitreous, run, tmp_path):
    result = vitreous("predict", run, tmp_path / "*.jpg")
    assert result.exit_code == 2
    assert "nothing is called" in result.stderr


def test_figures_are_whole_in_a_pipe(capsys):
    from vitreous.printing import print_table

    names = [f"a long name of a class {number}" for number in range(20)]
    print_table("confusion", ("true", *names), [(name, *["123456"] * 20) for name in names])
    printed = capsys.readouterr().out
    assert "\u2026" not in printed
    assert printed.count("123456") == 400
    assert all(printed.count(name) >= 2 for name in names)
