"""What a person types, and what comes back."""

import hashlib
import html
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

import vitreous as package
from vitreous import job
from vitreous.data.faces import write_faces

from .conftest import QUICK


def folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_mtime_ns}".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def test_a_run_folder_holds_everything(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "best.safetensors",
        "last.safetensors",
        "checkpoints",
        "config.toml",
        "evaluation.json",
        "kept.json",
        "metrics.jsonl",
        "plan.json",
        "provenance.json",
        "report.html",
        "split.csv",
    }
    report = (run / "report.html").read_text()
    assert "balanced accuracy" in report.lower()
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["peak_memory_bytes"] > 50e6  # PyTorch alone takes more
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["train"]["epochs"] == 25.0
    assert "budget_s" not in config["train"]


def test_weights_travel_with_names_and_preprocessing_and_nothing_else(run):
    with safe_open(run / "best.safetensors", framework="np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["vitreous"]
    inside = json.loads(metadata["vitreous"])
    assert set(inside) == {"model", "preprocess", "classes", "majority_class", "temperature"}
    assert inside["classes"] == ["angry", "happy", "sad"]
    assert str(run) not in metadata["vitreous"]


def test_evaluate_prints_one_json_value(vitreous, run, faces):
    result = vitreous("evaluate", run, faces / "test", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["n"] == 30
    for key in ("accuracy", "balanced_accuracy"):
        assert set(found[key]) == {"value", "low", "high"}
    assert set(found["per_class"]) == {"angry", "happy", "sad"}
    assert sum(map(sum, found["confusion"])) == 30
    assert found["unreadable"] == []
    assert list(found["top_k"]) == ["2"]
    assert found["balanced_accuracy"]["value"] > 0.5  # it learned something in these seconds


def test_all_ways_to_the_same_pictures_give_the_same_score(vitreous, run, faces):
    ways = [
        ("evaluate", run, faces / "test"),
        ("evaluate", run, faces),
        ("evaluate", run, faces, "--split", "test"),
        ("evaluate", run),
        ("evaluate", run / "best.safetensors", faces / "test"),
    ]
    found = [json.loads(vitreous(*way, "--json").stdout) for way in ways]
    assert all(other == found[0] for other in found)
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept.pop("split") == "test"
    # Only behind training are there pictures for it to learn from.
    assert 0 < kept["baselines"].pop("thumbnails")["accuracy"] < 1
    assert kept == found[0]


def test_evaluate_prints_tables_for_people(vitreous, run, faces):
    result = vitreous("evaluate", run, faces / "test")
    assert "precision" in result.stdout
    assert "30" in result.stdout


def test_a_score_on_pictures_that_chose_the_weights_says_so(vitreous, run, faces, tmp_path):
    flattered = "That is a little optimistic: these pictures also chose the weights."
    ways = {
        (run, "--split", "valid"): True,
        (run, faces, "--split", "valid"): True,
        (run, "--split", "test"): False,
        (run, faces / "test"): False,
    }
    shutil.copytree(faces / "test", tmp_path / "others" / "valid")
    ways[run, tmp_path / "others"] = False  # another's validation pictures
    for way, chose in ways.items():
        told = vitreous("evaluate", *way).stdout
        assert (told.splitlines()[-1].endswith(flattered)) == chose
        assert ("fitted on these very pictures" in told) == chose
        found = json.loads(vitreous("evaluate", *way, "--json").stdout)
        assert found["chose_weights"] is chose


def test_predict_keeps_the_order_and_agrees_with_evaluate(vitreous, run, faces):
    files = [faces / "test" / "sad" / "00003.png", faces / "test" / "happy" / "00001.png"]
    result = vitreous("predict", run, *files, faces / "test", "--json")
    assert result.exit_code == 0
    answers = json.loads(result.stdout)
    assert [answer["file"] for answer in answers[:2]] == [str(file) for file in files]
    assert len(answers) == 32
    assert set(answers[0]) == {"file", "label", "probability", "probabilities"}
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert answer["probability"] == max(answer["probabilities"].values())
        assert answer["probabilities"][answer["label"]] == answer["probability"]
    right = sum(Path(answer["file"]).parent.name == answer["label"] for answer in answers[2:])
    score = json.loads(vitreous("evaluate", run, faces / "test", "--json").stdout)
    assert right / 30 == pytest.approx(score["accuracy"]["value"])


def test_predict_goes_on_behind_an_unreadable_picture_and_exits_1(vitreous, run, faces, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    good = faces / "test" / "happy" / "00000.png"
    result = vitreous("predict", run, tmp_path / "bad.jpg", good, "--json")
    assert result.exit_code == 1
    bad, answer = json.loads(result.stdout)
    assert set(bad) == {"file", "error"}
    assert bad["file"] == str(tmp_path / "bad.jpg")
    assert answer["label"] in ("angry", "happy", "sad")
    assert "bad.jpg" in result.stderr
    plain = vitreous("predict", run, tmp_path / "bad.jpg", good)
    assert plain.stdout.split()[0] == answer["label"]


def test_the_same_picture_in_another_dress_is_the_same(vitreous, run, faces, tmp_path):
    file = faces / "test" / "happy" / "00002.png"
    with Image.open(file) as image:
        image.save(tmp_path / "same.bmp")
        image.convert("RGBA").save(tmp_path / "alpha.png")
        turned = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # "turn right by 90 degrees to see it upright"
        turned.save(tmp_path / "turned.png", exif=exif)
    answers = json.loads(vitreous("predict", run, file, tmp_path, "--json").stdout)
    assert len({tuple(answer["probabilities"].values()) for answer in answers}) == 1


def test_summary_of_presets_and_runs(vitreous, run, tmp_path, monkeypatch):
    found = json.loads(vitreous("summary", "S/16", "--json").stdout)
    assert (found["parameters"], found["tokens"]) == (22_050_664, 197)
    assert found["flops"] == pytest.approx(9.2e9, rel=0.01)
    table = vitreous("summary", "lecture").stdout
    assert "283,478,787 parameters" in table
    assert json.loads(vitreous("summary", run, "--json").stdout)["parameters"] < 200_000
    assert "unknown preset 'S/17': did you mean" in vitreous("summary", "S/17").stderr
    (tmp_path / "lecture").mkdir()
    monkeypatch.chdir(tmp_path)  # a preset is one wherever it is asked for
    assert vitreous("summary", "lecture").stdout == table
    mistyped = vitreous("summary", "runs/none")
    assert mistyped.exit_code == 2
    assert "runs/none does not exist" in mistyped.stderr
    other = vitreous("summary", "Ti/16", "--image-size", "96", "--classes", "3", "--json")
    assert json.loads(other.stdout)["tokens"] == 37


def test_a_finished_run_says_so(vitreous, run):
    before = (run / "last.safetensors").read_bytes()
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 0
    assert "is finished" in result.stderr
    assert (run / "last.safetensors").read_bytes() == before


def test_a_budget_measures_first_and_writes_down_what_it_chose(vitreous, faces, tmp_path):
    path = tmp_path / "run"
    result = vitreous("train", faces, "--out", path, "--budget", "12s", "--quiet")
    assert result.exit_code == 0, result.stderr
    plan = json.loads((path / "plan.json").read_text())
    assert plan["step_s"] > 0
    assert plan["evaluation_s"] > 0
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == plan["stretches"][-1]["total_steps"]
    assert tomllib.loads((path / "config.toml").read_text())["train"]["budget_s"] == 12.0


def test_the_choice_is_explained_before_the_work_and_in_the_report(vitreous, faces, tmp_path):
    arguments = ("--epochs", "1", "--set", "model.depth=1", "--explain-choice")
    result = vitreous("train", faces, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 0, result.stderr
    rows = json.loads((tmp_path / "run" / "choice.json").read_text())
    assert result.stdout == "".join(f"{name} = {value}\n    {why}\n" for name, value, why in rows)
    assert "240: 240 pictures times 1;" in result.stdout
    report = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert all(why in report for _, _, why in rows)
    again = vitreous("train", "--resume", tmp_path / "run", "--explain-choice")
    assert again.exit_code == 2


def test_user_files_are_never_written(vitreous, run, faces):
    before = folder_hash(faces)
    assert vitreous("evaluate", run, faces).exit_code == 0
    assert vitreous("predict", run, faces / "test").exit_code == 0
    assert folder_hash(faces) == before


def test_help_needs_no_torch():
    script = (
        "import sys; from vitreous.cli import cli; "
        "cli.main(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")
    assert "vitreous train faces/" in done.stdout


def test_importing_the_package_does_nothing():
    script = "import sys, vitreous; print('torch' in sys.modules, vitreous.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", package.__version__]


def test_the_installed_command_ends_with_the_right_status(tmp_path):
    command = Path(sys.executable).parent / "vitreous"
    done = subprocess.run([command, "summary", "S/17"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean 'S/16'" in done.stderr


def test_python_and_command_are_one(run, faces):
    import vitreous

    score = vitreous.evaluate(run, faces / "test")
    kept = json.loads((run / "evaluation.json").read_text())
    del kept["split"], kept["baselines"]["thumbnails"]
    assert score.to_json() == kept
    assert vitreous.predict(run, faces / "test" / "sad")[0]["label"]
    assert vitreous.summary("Ti/16").parameters == 5_717_416
    page = vitreous.Run(run)._repr_html_()
    assert page.startswith("<iframe")
    assert "<h1" not in page  # it stands escaped inside the frame's attribute


def test_the_help_shows_commands_line_by_line(vitreous):
    lines = vitreous("--help").stdout.splitlines()
    assert "    vitreous predict runs/faces photo.jpg" in lines


FIRST_VALIDATION = """
import sys
from pathlib import Path
from vitreous import api, supervised

def begin(*_):
    missing = {"sklearn.metrics", "scipy.stats"} - set(sys.modules)
    sys.exit(f"still to import: {missing or 'nothing'}")

supervised.run_training = begin
api.train(sys.argv[1], Path(sys.argv[2]), epochs=1, settings={"data": {"check": False}})
"""


def test_the_first_validation_is_timed_without_its_imports(tmp_path):
    """It is one of some pictures, and a budget leaves hundreds of times as long for the end."""
    write_faces(tmp_path / "faces", 8, size=32)
    words = [sys.executable, "-c", FIRST_VALIDATION, tmp_path / "faces", tmp_path / "run"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stderr.endswith("still to import: nothing\n"), done.stderr


def test_a_source_whose_name_is_no_utf8_is_worked_on_to_the_end(tmp_path):
    """As real commands: output in strict UTF-8, one picture unreadable, some put aside."""
    source, run = tmp_path / os.fsdecode(b"f\xe9"), tmp_path / "run"
    write_faces(source, 20, size=32, seed=5)
    (source / "happy" / os.fsdecode(b"\xff.png")).write_bytes(b"no picture")
    small = ("--epochs", "1", "--set", "model.depth=1", "--set", "model.embed_dim=32", "--set",
             "model.num_heads=2", "--set", "model.stem=[8,16,32]", "--set", "train.batch_size=16",
             "--set", "data.calibration_share=0.3")  # fmt: skip
    here = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "XDG_CACHE_HOME": str(tmp_path)}

    def done(*words):
        command = [sys.executable, "-m", "vitreous", *map(os.fsencode, words)]
        return subprocess.run(command, capture_output=True, env=here, cwd=tmp_path, check=False)

    refused = done("train", source, *small)  # into runs/, by its own name
    assert refused.returncode == 2
    assert b"is no UTF-8, and weights can't be read from such a place: name anot" in refused.stderr
    for words in (
        ("train", source, "--out", run, *small),
        ("diagnose", run),
        ("evaluate", run),
        ("check", source, "--out", tmp_path / os.fsdecode(b"c\xe9")),
        ("patches", source / "happy" / "00000.png", "--out", run / "patches.png"),
    ):
        found = done(*words)
        assert b"Traceback" not in found.stderr
        assert found.returncode == 0, found.stderr
        assert words[0] != "check" or b"f\\udce9" in found.stdout
    found = json.loads((run / "evaluation.json").read_text())
    assert found["split"] == "valid"


def test_photographs_that_are_not_read_are_named_wherever_a_folder_is(
    vitreous, run, faces, tmp_path
):
    mixed = tmp_path / "mixed"
    shutil.copytree(faces / "test", mixed)
    (mixed / "happy" / "IMG_1.HEIC").write_bytes(b"a photograph")
    for words in (("predict", run, mixed), ("evaluate", run, mixed)):
        result = vitreous(*words)
        assert result.exit_code == 0
        said = " ".join(result.stderr.split())
        assert "a format that isn't read are left out, 1 in all, such as" in said
        assert "IMG_1.HEIC" in said


def test_a_place_that_was_taken_meanwhile_is_left_to_who_took_it(
    vitreous, faces, tmp_path, monkeypatch
):
    """Two trainings of one source at once: the other's folder appears while this one looks."""
    monkeypatch.chdir(tmp_path)
    look, other = job._look_first, tmp_path / "runs" / "faces"

    def meanwhile(*arguments):
        other.mkdir(parents=True)
        (other / "config.toml").write_text("recipe = 'other'\n")
        return look(*arguments)

    monkeypatch.setattr(job, "_look_first", meanwhile)
    result = vitreous("train", faces, *QUICK, "--epochs", "1")
    assert result.exit_code == 0, result.stderr
    assert "runs/faces-2" in result.stderr
    assert (tmp_path / "runs" / "faces-2" / "report.html").exists()
    assert [path.name for path in other.iterdir()] == ["config.toml"]
