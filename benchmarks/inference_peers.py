"""A worker: predictions by other libraries, from JPEG files to probabilities.

    PEERS/bin/python benchmarks/inference_peers.py \
        '{"library": "timm", "model": "S/16", "pictures": "pictures", "batch_size": 1}'

timm and transformers with their own preprocessing; ONNX Runtime and OpenVINO with timm's model as
an ONNX file, fed by Pillow and NumPy. Each with the threads that it takes by itself, in the
precision named: OpenVINO would take bfloat16 unasked where the processor has it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from speed_turns import Turns

SIDE, NUM_CLASSES = 224, 3
#: Converted models; a folder of the peers' environment.
MODELS = Path(sys.prefix) / "models"

Predict = Callable[[list[Path]], Any]


def run_timm(settings: dict[str, Any]) -> Predict:
    import torch
    from training_torch_peers import timm_model  # first: torchvision needs what it defines

    dtype = getattr(torch, settings["precision"])
    model = timm_model(settings["model"], SIDE).eval().to(dtype)
    from timm.data import create_transform, resolve_data_config

    transform: Any = create_transform(**resolve_data_config({}, model=model))

    def predict(files: list[Path]) -> Any:
        images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
        with torch.inference_mode():
            return model(images.to(dtype)).softmax(1)

    return predict


def run_transformers(settings: dict[str, Any]) -> Predict:
    import torch
    from training_torch_peers import transformers_model  # first: torchvision needs what it defines

    dtype = getattr(torch, settings["precision"])
    model = transformers_model(settings["model"], SIDE).eval().to(dtype)
    from transformers import ViTImageProcessor

    processor: Any = ViTImageProcessor()

    def predict(files: list[Path]) -> Any:
        pictures = [Image.open(file).convert("RGB") for file in files]
        images = processor(pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return model(images.to(dtype)).logits.softmax(1)

    return predict


def run_onnxruntime(settings: dict[str, Any]) -> Predict:
    import onnxruntime

    path = onnx_file(settings["model"])
    if settings["precision"] == "int8":
        path = int8_file(path)
    session = onnxruntime.InferenceSession(path)
    return lambda files: softmax(session.run(None, {"images": by_pillow(files)})[0])


def run_openvino(settings: dict[str, Any]) -> Predict:
    import openvino

    hint = {"float32": "f32", "bfloat16": "bf16"}[settings["precision"]]
    compiled = openvino.Core().compile_model(
        onnx_file(settings["model"]), "CPU", {"INFERENCE_PRECISION_HINT": hint}
    )
    return lambda files: softmax(compiled([by_pillow(files)])[0])


def onnx_file(model: str) -> Path:
    """The model of timm as an ONNX file, written on first use."""
    path = MODELS / f"{model.replace('/', '-')}.onnx"
    if not path.exists():
        import torch
        from training_torch_peers import timm_model

        MODELS.mkdir(exist_ok=True)
        program = torch.onnx.export(
            timm_model(model, SIDE).eval(),
            (torch.zeros(2, 3, SIDE, SIDE),),
            input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
        )
        assert program is not None
        program.save(path)
    return path


def int8_file(path: Path) -> Path:
    """The same with eight-bit weights, as ONNX Runtime's documentation has it for transformers."""
    small = path.with_suffix(".int8.onnx")
    if not small.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            path, small, weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True}
        )
    return small


def by_pillow(files: list[Path]) -> np.ndarray:
    return np.stack([_input(file) for file in files])


def _input(file: Path) -> np.ndarray:
    image = Image.open(file).convert("RGB")
    scale = SIDE / min(image.size)
    width, height = (max(SIDE, round(length * scale)) for length in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    image = image.crop((left, top, left + SIDE, top + SIDE))
    return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


RUNS = {
    "timm": run_timm,
    "transformers": run_transformers,
    "onnxruntime": run_onnxruntime,
    "openvino": run_openvino,
}


def main(settings: dict[str, Any]) -> None:
    # A benchmark reports to nobody.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]
    files = sorted(Path(settings["pictures"]).iterdir())[: settings["batch_size"]]
    turns = Turns(len(files))
    predict = RUNS[settings["library"]]({"precision": "float32", **settings})
    while True:
        turns.begin()
        assert predict(files).shape == (len(files), NUM_CLASSES)
        turns.end()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
