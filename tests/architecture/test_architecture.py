"""Rules of the house that a machine can check."""

import subprocess
import sys
from pathlib import Path

import vitreous
from vitreous import errors

ROOT = Path(__file__).parents[2]


def test_the_public_names_are_these():
    assert vitreous.__all__ == [
        "Model",
        "Run",
        "VitreousError",
        "__version__",
        "audit",
        "calibrate",
        "check",
        "compare",
        "demo",
        "diagnose",
        "evaluate",
        "explain",
        "export",
        "pack",
        "patches",
        "predict",
        "pretrain",
        "resume",
        "serve",
        "summary",
        "train",
        "tune",
    ]
    for name in vitreous.__all__:
        assert getattr(vitreous, name) is not None


def test_every_layer_imports_only_what_stands_below_it():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_exception_stands_in_the_drawing():
    names = [name for name in vars(errors) if isinstance(getattr(errors, name), type)]
    assert len(names) == 10
    assert all(name in (errors.__doc__ or "") for name in names)


def test_files_stay_readable_in_one_sitting():
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "src").rglob("*.py")}
    assert {path: length for path, length in lengths.items() if length > 420} == {}
