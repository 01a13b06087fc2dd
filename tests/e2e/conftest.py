"""One small run on drawn faces, shared by all end-to-end tests."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vitreous.cli import _status, cli
from vitreous.data.faces import write_faces

#: Small enough to train in seconds, learned well enough to be right more often than not.
QUICK = ("--epochs", "25", "--set", "train.learning_rate=4e-3", "--set", "train.batch_size=16",
         "--set", "model.depth=2", "--set", "model.embed_dim=64", "--set", "model.num_heads=4",
         "--set", "model.stem=[16,32,64]", "--set", "augment.affine_chance=0")  # fmt: skip


#: Those that decode a whole folder.
CACHED = ("train", "pretrain", "evaluate", "calibrate", "compare")


class Command:
    """Runs `vitreous` in this process, with the exit status that a shell would see."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def __call__(self, *arguments: object) -> Result:
        runner = CliRunner()
        words = [str(argument) for argument in arguments]
        if words[0] in CACHED and "--resume" not in words:
            words += ["--cache", str(self.cache)]
        with runner.isolation() as (out, err, _):
            status = _status(lambda: cli.main(words, standalone_mode=False))
            texts = out.getvalue(), err.getvalue()
        result = Result(runner, texts[0], texts[1], b"", None, status, None)
        assert "Traceback" not in result.stderr
        return result


@pytest.fixture(scope="session")
def vitreous(tmp_path_factory) -> Command:
    return Command(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "faces"
    for seed, (split, per_class) in enumerate({"train": 80, "valid": 10, "test": 10}.items()):
        write_faces(folder / split, per_class, size=32, seed=seed)
    return folder


@pytest.fixture(scope="session")
def run(vitreous, faces, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "faces"
    result = vitreous("train", faces, "--out", path, *QUICK)
    assert result.exit_code == 0, result.stderr
    return path
