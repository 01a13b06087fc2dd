"""A script as a user of timm or transformers writes it: one picture, classified by a local model.

PEERS/bin/python benchmarks/startup_peers.py timm FOLDER --make
PEERS/bin/python benchmarks/startup_peers.py timm FOLDER photo.jpg
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import training_torch_peers as shared  # first: torchvision needs what it defines

NAME, SIDE, NUM_CLASSES = "S/16", 224, 3
LIBRARY = sys.argv[1]
# At the top, where scripts have their imports.
if LIBRARY == "timm":
    import timm
    import torch
    from PIL import Image
else:
    from transformers import ViTImageProcessor, pipeline


def timm_model() -> Any:
    return timm.create_model("vit_small_patch16_224", num_classes=NUM_CLASSES)


def make(folder: Path) -> None:
    folder.mkdir()
    if LIBRARY == "timm":
        torch.save(timm_model().state_dict(), folder / "model.pth")
        return
    shared.transformers_model(NAME, SIDE).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)


def predict(folder: Path, picture: str) -> None:
    if LIBRARY == "transformers":
        print(pipeline("image-classification", model=str(folder))(picture))
        return
    model = timm_model().eval()
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    settings = timm.data.resolve_data_config({}, model=model)
    transform: Any = timm.data.create_transform(**settings)
    image = Image.open(picture).convert("RGB")
    with torch.inference_mode():
        print(model(transform(image)[None]).softmax(1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=["timm", "transformers"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--make", action="store_true", help="write the model first")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.folder)
    else:
        predict(arguments.folder, arguments.picture)


if __name__ == "__main__":
    main()
