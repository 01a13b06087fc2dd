"""A worker: predictions of the product, from JPEG files to named probabilities.

    python benchmarks/inference_ours.py \
        '{"weights": "S-16.safetensors", "pictures": "pictures", "batch_size": 1}'

As `vitreous predict` makes them: by the runtime that `vitreous tune` kept unless one is named.
"""

import json
import sys
from pathlib import Path
from typing import Any

from speed_turns import Turns

from vitreous.core.console import Console
from vitreous.serving.predictor import open_predictor, predict_files
from vitreous.serving.runtimes import Engine
from vitreous.serving.tune import choose_engine


def main(settings: dict[str, Any]) -> None:
    files = sorted(Path(settings["pictures"]).iterdir())[: settings["batch_size"]]
    weights, console = Path(settings["weights"]), Console()
    precision = settings.get("precision", "float32")
    engine = choose_engine(weights, settings.get("runtime"), precision, "auto", console)
    engine = Engine(engine.runtime, precision, settings.get("threads", engine.threads))
    predictor, turns = open_predictor(weights, engine, console), Turns(len(files))
    while True:
        turns.begin()
        answers = predict_files(predictor, files)
        assert all(answer.probabilities for answer in answers)
        turns.end()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
