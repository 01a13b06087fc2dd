"""A worker: how fast pictures reach a model the usual way.

    PEERS/bin/python benchmarks/feeding_peer.py '{"what": "epochs", "pictures": FOLDER, "side": 48}'

torchvision's ImageFolder with Pillow, timm's augmentation at its defaults ("epochs") or its resize
and centre crop ("photos"), and PyTorch's DataLoader with a worker process for each core, kept from
epoch to epoch.
"""

import json
import os
import sys
from typing import Any

from speed_turns import Turns
from torchvision_operators import name_operators

name_operators()

BATCH_SIZE = 128


def main(settings: dict[str, Any]) -> None:
    from timm.data import create_transform  # pyright: ignore[reportPrivateImportUsage]
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    is_training = settings["what"] == "epochs"
    transform = create_transform(settings["side"], is_training=is_training)
    dataset = ImageFolder(settings["pictures"], transform)
    loader = DataLoader(
        dataset, BATCH_SIZE, shuffle=is_training, drop_last=is_training,
        num_workers=os.cpu_count() or 1, persistent_workers=True,
    )  # fmt: skip
    turns = Turns(len(loader) * BATCH_SIZE if is_training else len(dataset))
    while True:
        turns.begin()
        for _ in loader:
            pass
        turns.end()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
