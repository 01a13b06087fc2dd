"""What is said before training, where there is much to say."""

import numpy as np
import torch
from PIL import Image

from vitreous.core.console import Console
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_dataset
from vitreous.data.folder import list_labelled
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ModelConfig
from vitreous.printing import print_table
from vitreous.telling import tell_plan
from vitreous.training.config import RunConfig


def test_many_classes_are_counted_and_the_first_named(tmp_path):
    rng = np.random.default_rng(0)
    config = RunConfig(
        "test",
        DataConfig(str(tmp_path / "pictures"), cache_dir=str(tmp_path / "cache")),
        ModelConfig(image_size=(8, 8), patch_size=(8, 8), num_classes=22, embed_dim=8, num_heads=1),
        Preprocess((8, 8)),
    )

    def told() -> str:
        listing = list_labelled(tmp_path / "pictures")
        dataset = open_dataset(listing, config.data, config.preprocess, 0)
        facts = tell_plan(config, dataset, torch.device("cpu"), Console(quiet=True))
        return facts["Pictures"].partition("; ")[2]

    names = [f"class_{number:02d}" for number in range(22)]
    for name in names[:20]:
        for number in range(2):
            file = tmp_path / "pictures" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    assert told() == f"20 classes: {', '.join(names[:20])}"
    for name in names[20:]:
        (tmp_path / "pictures" / name).mkdir()
        for number in range(2):
            picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{number}.png")
    assert told() == f"22 classes: {', '.join(names[:20])}, and 2 more"


def test_names_are_said_as_they_are(capsys):
    """A word between colons is an emoji's name to Rich, one in brackets a style's."""
    Console().warn("[red]/:smile:.png")
    assert "[red]/:smile:.png" in capsys.readouterr().err
    print_table("", ("class",), [(":cat:",)])
    assert ":cat:" in capsys.readouterr().out
