"""Whatever computes them, the answers are the same; which one computes is chosen or measured."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PARTS = ("onnxruntime", "openvino")


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """The folder of converted models, for this module alone."""
    folder = tmp_path_factory.mktemp("user-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "vitreous" / "models"


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """The run, to be tuned without changing what other tests see."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def answers(vitreous, *arguments) -> list[dict]:
    result = vitreous("predict", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def probabilities(found: list[dict]) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in found])


def numbers(value: object) -> list[float]:
    """All numbers in nested plain values, in order."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value]


def stamps(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("runtime", PARTS)
def test_answers_and_scores_are_torchs(vitreous, run, faces, runtime):
    wanted = answers(vitreous, run, faces / "test", "--runtime", "torch")
    found = answers(vitreous, run, faces / "test", "--runtime", runtime)
    assert [answer["label"] for answer in found] == [answer["label"] for answer in wanted]
    assert np.abs(probabilities(found) - probabilities(wanted)).max() < 1e-4
    assert probabilities(wanted).std() > 0.1
    scores = [
        json.loads(vitreous("evaluate", run, faces / "test", "--runtime", name, "--json").stdout)
        for name in ("torch", runtime)
    ]
    for rounded in ("loss", "reliability", "untempered"):
        mine, torchs = (score.pop(rounded) for score in reversed(scores))
        assert numbers(mine) == pytest.approx(numbers(torchs), abs=1e-4)
    assert scores[0] == scores[1]


@pytest.mark.parametrize("runtime", PARTS)
def test_caution_is_torchs(vitreous, run, faces, runtime):
    """Features come out of a converted network too, behind its logits."""
    caution = ("--sets", "0.8", "--refuse")
    wanted = answers(vitreous, run, faces / "test", "--runtime", "torch", *caution)
    found = answers(vitreous, run, faces / "test", "--runtime", runtime, *caution)
    for mine, torchs in zip(found, wanted, strict=True):
        for key in ("label", "set", "refused", "reason"):
            assert mine[key] == torchs[key]
    assert np.abs(probabilities(found) - probabilities(wanted)).max() < 1e-4
    assert len({len(answer["set"]) for answer in wanted}) > 1


@pytest.mark.parametrize("runtime", PARTS)
def test_a_model_is_converted_once_and_again_when_damaged(vitreous, run, faces, models, runtime):
    picture = faces / "test" / "sad" / "00000.png"
    wanted = answers(vitreous, run, picture, "--runtime", runtime)
    before = stamps(models)
    again = vitreous("predict", run, picture, "--runtime", runtime, "--json")
    assert "converting" not in again.stderr
    assert stamps(models) == before
    ending = {"onnxruntime": "*.onnx", "openvino": "*.xml"}[runtime]
    for damaged in models.rglob(ending):
        damaged.write_bytes(damaged.read_bytes()[:1000])
    mended = vitreous("predict", run, picture, "--runtime", runtime, "--json")
    assert mended.stderr.count("converting") == 1
    assert json.loads(mended.stdout) == wanted


@pytest.mark.parametrize(
    ("precision", "runtime"),
    [("bfloat16", "torch"), ("bfloat16", "openvino"), ("int8", "onnxruntime")],
)
def test_a_lower_precision_says_what_it_changes(vitreous, run, faces, precision, runtime):
    plain = answers(vitreous, run, faces / "test", "--runtime", "torch")
    options = ("--precision", precision, "--runtime", runtime)
    result = vitreous("predict", run, faces / "test", *options, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    difference = np.abs(probabilities(found) - probabilities(plain)).max()
    others = sum(a["label"] != b["label"] for a, b in zip(found, plain, strict=True))
    assert f"{precision}: pictures compared with float32: 30, other labels: {others}, " in (
        " ".join(result.stderr.split())
    )
    said = float(result.stderr.split()[-1])
    assert said == pytest.approx(difference, abs=2e-4)
    assert said < 0.2
    score = vitreous("evaluate", run, faces / "test", *options, "--quiet")
    assert "compared with float32: 30" in score.stderr


def test_float32_has_nothing_to_say(vitreous, run, faces):
    assert vitreous("predict", run, faces / "test", "--quiet").stderr == ""


def test_the_runtime_follows_the_precision_where_none_is_named(vitreous, run, faces):
    picture = faces / "test" / "sad" / "00000.png"
    named = answers(vitreous, run, picture, "--precision", "int8", "--runtime", "onnxruntime")
    assert answers(vitreous, run, picture, "--precision", "int8") == named


def test_a_device_can_be_named(vitreous, run, faces, tmp_path, monkeypatch):
    from vitreous.training import device

    wanted, original = [], device.choose_device
    for module in ("serving.runtimes", "trained", "serving.calibrate"):
        monkeypatch.setattr(
            f"vitreous.{module}.choose_device", lambda name: wanted.append(name) or original("cpu")
        )
    picture = faces / "test" / "sad" / "00000.png"
    weights = shutil.copy(run / "best.safetensors", tmp_path)  # beside which it may write
    new = faces / "test"
    for words in (
        ("predict", run, picture),
        ("evaluate", run),
        ("explain", run, picture, "--out", tmp_path / "maps"),
        ("calibrate", weights, new),
    ):
        wanted.clear()
        result = vitreous(*words, "--device", "cuda")
        assert result.exit_code == 0, result.stderr
        assert set(wanted) == {"cuda"}
        wanted.clear()
        assert vitreous(*words).exit_code == 0
        assert set(wanted) == {"auto"}


def test_a_device_that_is_not_there_or_that_a_runtime_lacks(vitreous, run, faces, monkeypatch):
    picture = faces / "test" / "sad" / "00000.png"
    result = vitreous("predict", run, picture, "--device", "mps")
    assert result.exit_code == 2
    assert "device 'mps' is not available here: this machine has" in result.stderr
    result = vitreous("predict", run, picture, "--device", "cuda", "--runtime", "onnxruntime")
    assert result.exit_code == 2
    assert "onnxruntime computes on the CPU here: leave --device cuda out" in result.stderr


@pytest.mark.parametrize(("runtime", "precision"), [("torch", "int8"), ("openvino", "int8")])
def test_a_precision_that_a_runtime_lacks(vitreous, run, faces, runtime, precision):
    result = vitreous("predict", run, faces, "--runtime", runtime, "--precision", precision)
    assert result.exit_code == 2
    assert f"{runtime} has no {precision}" in result.stderr
    assert "--runtime onnxruntime" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("runtime", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_library_is_named_with_its_extra(
    vitreous, run, faces, monkeypatch, runtime, extra
):
    hide(monkeypatch, runtime)
    result = vitreous("predict", run, faces, "--runtime", runtime)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert f'{runtime} is not installed: pip install "vitreous[{extra}]"' in result.stderr


@pytest.mark.parametrize("runtime", PARTS)
def test_unreadable_pictures_stop_nothing(vitreous, run, faces, tmp_path, runtime):
    (tmp_path / "bad.jpg").write_text("no picture")
    good = faces / "test" / "happy" / "00000.png"
    result = vitreous("predict", run, tmp_path / "bad.jpg", good, "--runtime", runtime, "--json")
    assert result.exit_code == 1
    bad, answer = json.loads(result.stdout)
    assert "error" in bad
    assert answer["label"] in ("angry", "happy", "sad")


def test_tune_measures_keeps_and_is_followed(vitreous, copy, faces, monkeypatch):
    result = vitreous("tune", copy, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {timing["runtime"] for timing in found["timings"]} == {"torch", *PARTS}
    assert all(timing["one_ms"] > 0 and timing["many_ms"] > 0 for timing in found["timings"])
    best = min(found["timings"], key=lambda timing: timing["one_ms"] * timing["many_ms"])
    kept = json.loads((copy / "runtime.json").read_text())
    assert kept["runtime"] == best["runtime"] == found["runtime"]
    assert kept["threads"] == best["threads"]
    assert found["file"] == str(copy / "runtime.json")
    follows(vitreous, copy, faces, monkeypatch, kept["runtime"])
    assert "chosen: " in vitreous("tune", copy / "best.safetensors").stdout


@pytest.mark.parametrize("runtime", ["torch", *PARTS])
def test_the_kept_choice_is_used_unless_a_flag_says_otherwise(
    vitreous, copy, faces, monkeypatch, runtime
):
    write_choice(vitreous, copy, runtime)
    follows(vitreous, copy, faces, monkeypatch, runtime)
    follows(vitreous, copy, faces, monkeypatch, "openvino", "--runtime", "openvino")
    assert "runtime.json" not in vitreous("predict", copy, faces / "test").stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "a toaster, 1 cores"}, "another machine (a toaster, 1 cores)"),
        ({"version": "0.1"}, "was measured with onnxruntime 0.1"),
        ({"runtime": "abacus"}, "is damaged"),
        ({"threads": "many"}, "is damaged"),
        (None, "is damaged"),
    ],
)
def test_a_choice_that_does_not_hold_here_is_left_alone(
    vitreous, copy, faces, monkeypatch, change, words
):
    kept = write_choice(vitreous, copy, "onnxruntime")
    if change is None:
        (copy / "runtime.json").write_text("{")
    else:
        (copy / "runtime.json").write_text(json.dumps(kept | change))
    picture = faces / "test" / "sad" / "00000.png"
    result = vitreous("predict", copy, picture)
    assert result.exit_code == 0, result.stderr
    assert words in " ".join(result.stderr.split())
    assert "torch is used" in " ".join(result.stderr.split())
    follows(vitreous, copy, faces, monkeypatch, "torch")


def test_a_library_that_is_gone_since_is_done_without(vitreous, copy, faces, monkeypatch):
    write_choice(vitreous, copy, "onnxruntime")
    hide(monkeypatch, "onnxruntime")
    result = vitreous("predict", copy, faces / "test" / "sad" / "00000.png")
    assert result.exit_code == 0
    assert "isn't installed any more: torch is used" in " ".join(result.stderr.split())


def hide(monkeypatch, module: str) -> None:
    """Make a library look as if it weren't installed."""
    monkeypatch.setitem(sys.modules, module, None)


def write_choice(vitreous, copy: Path, runtime: str) -> dict:
    """A choice as tune writes it on this machine, without measuring."""
    from vitreous.core.machine import processor
    from vitreous.serving.runtimes import version_of

    kept = {"runtime": runtime, "threads": 1, "version": version_of(runtime)}
    kept["machine"] = processor()
    (copy / "runtime.json").write_text(json.dumps(kept))
    return kept


def follows(vitreous, copy, faces, monkeypatch, runtime, *options) -> None:
    """The command computes with this runtime: with it broken there is no answer."""
    from vitreous.serving import runtimes

    opened = []
    real = runtimes.open_network

    def watch(weights, engine, *others):
        opened.append(engine.runtime)
        return real(weights, engine, *others)

    with monkeypatch.context() as patch:
        patch.setattr("vitreous.serving.predictor.open_network", watch)
        answers(vitreous, copy, faces / "test" / "sad" / "00000.png", *options)
    assert opened == [runtime]


def test_predicting_imports_nothing_that_it_does_not_need(run, faces):
    """Each of these takes long to import, and a first answer waits for it."""
    heavy = ["scipy", "sklearn", "matplotlib", "jinja2", "torch._dynamo", "sympy", "onnx",
             "onnxscript", "onnxruntime", "openvino"]  # fmt: skip
    script = (
        "import sys; from vitreous.cli import cli; "
        "cli.main(['predict', *sys.argv[1:]], standalone_mode=False); "
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    arguments = [str(run), str(faces / "test" / "sad" / "00000.png")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
    assert len(done.stdout.splitlines()) == 2
