"""The network of a weights file on PyTorch, ONNX Runtime or OpenVINO.

All of them compute the same from the same normalised pictures; preparing those and reading the
answers is `evaluation.inference`'s, whichever is chosen. Which one is the fastest depends on the
machine: see `tune`.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.core.console import Console
from vitreous.core.rng import numpy_stream, torch_stream
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.data.preprocess import Preprocess, fit, normalise
from vitreous.errors import ConfigError, VitreousError
from vitreous.evaluation.inference import Network, TorchNetwork
from vitreous.exporting.libraries import (
    import_onnxruntime,
    import_openvino,
    open_session,
    openvino_core,
)
from vitreous.model.features import WithFeatures
from vitreous.model.fold import fold
from vitreous.model.onednn import prefer_onednn
from vitreous.model.vit import ViT
from vitreous.serving.converted import open_converted
from vitreous.training.classifier import load_classifier
from vitreous.training.config import Device
from vitreous.training.device import choose_device

Runtime = Literal["torch", "onnxruntime", "openvino"]
Precision = Literal["float32", "bfloat16", "int8"]

#: What each can compute in. Eight bits mean int8 weights, scaled by channel, and inputs of the
#: matrix products rounded as they come, but for a few channels that tower above the others.
PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "torch": ("float32", "bfloat16"),
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16"),
}
_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
_MODULES = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
            "openvino": ("openvino",)}  # fmt: skip

#: Largest difference of a probability between a float32 conversion and PyTorch, and of a feature
#: as a share of the largest.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Engine:
    """What computes, and how.

    Args:
        runtime: the library.
        precision: of its matrix products.
        threads: that one call has.
        device: where PyTorch computes; the others have the CPU.

    Raises:
        ConfigError: for a precision or device that the runtime doesn't have, or a name that isn't
            one.
    """

    runtime: Runtime = "torch"
    precision: Precision = "float32"
    threads: int = 1
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.runtime not in PRECISIONS:
            raise ConfigError(
                f"unknown runtime '{self.runtime}': {', '.join(PRECISIONS)} are there"
            )
        if self.precision not in get_args(Precision):
            raise ConfigError(
                f"unknown precision '{self.precision}': {', '.join(get_args(Precision))} are there"
            )
        if self.precision not in PRECISIONS[self.runtime]:
            can = [name for name, known in PRECISIONS.items() if self.precision in known]
            raise ConfigError(
                f"{self.runtime} has no {self.precision} here, but "
                f"{', '.join(PRECISIONS[self.runtime])}; {self.precision} is there with --runtime "
                f"{' or '.join(can)}"
            )
        if self.runtime != "torch" and self.device not in ("auto", "cpu"):
            raise ConfigError(
                f"{self.runtime} computes on the CPU here: leave --device {self.device} out, or "
                "use --runtime torch"
            )


def is_installed(runtime: Runtime) -> bool:
    """Whether all that a runtime needs is there, to convert for it too."""
    return all(find_spec(module) is not None for module in _MODULES[runtime])


def check_installed(runtime: Runtime, precision: Precision = "float32") -> None:
    """Refuse a runtime that isn't there.

    Raises:
        ConfigError: naming the extra that brings it, and what else has the precision.
    """
    if not is_installed(runtime):
        others = [
            f", or use --runtime {name}"
            for name in get_args(Runtime)
            if name != runtime and precision in PRECISIONS[name] and is_installed(name)
        ]
        extra = f'pip install "vitreous[{_EXTRAS[runtime]}]"'
        raise ConfigError(f"{runtime} is not installed: {extra}{''.join(others)}")


def version_of(runtime: Runtime) -> str:
    """As the library itself says it: packages of several names bring the same one."""
    libraries = {"onnxruntime": import_onnxruntime, "openvino": import_openvino}
    return libraries[runtime]().__version__ if runtime in libraries else torch.__version__


def open_network(
    weights: Path, engine: Engine, console: Console, features: bool = False
) -> Network:
    """The network of a weights file, converted first where an engine needs that.

    Args:
        weights: the file.
        engine: what computes.
        console: is told of conversions.
        features: whether it gives features behind its logits (see `model.features`).

    Raises:
        ConfigError: where the engine's library isn't installed.
        RunError: where the weights are damaged.
        StorageError: where the conversion can't be kept.
    """
    check_installed(engine.runtime, engine.precision)
    if engine.runtime == "torch":
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[engine.precision]
        model = _folded(weights, features).to(choose_device(engine.device), dtype)
        prefer_onednn(model)
        return TorchNetwork(model, dtype)
    open_converted_network = _open_openvino if engine.runtime == "openvino" else _open_onnx
    return open_converted_network(weights, engine, console, features)


def _folded(weights: Path, features: bool) -> ViT | WithFeatures:
    model = fold(load_classifier(weights).model)
    return WithFeatures(model).eval() if features else model


class _CpuNetwork:
    """A compiled graph that takes and gives arrays; its threads are its own.

    Args:
        run: (batch, channels, height, width) float32 -> (batch, classes) float32.
    """

    device = torch.device("cpu")
    side_by_side = 1

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run = run

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self._run(images.numpy()))


def _open_onnx(weights: Path, engine: Engine, console: Console, features: bool) -> Network:
    def load(entry: Path) -> Network:
        return _onnx_network(entry / "model.onnx", engine.threads)

    def make(folder: Path, most_bytes: float = math.inf) -> None:
        from vitreous.exporting.onnx import bytes_of, write_onnx

        model = _folded(weights, features)
        size = bytes_of(model)
        if size > most_bytes:
            raise ConfigError(
                f"int8 is made of one ONNX file, which has room for {most_bytes / 1e9:.1f} GB of "
                f"weights, and {weights} has {size / 1e9:.1f}: take --precision float32, or "
                "bfloat16 with --runtime openvino"
            )
        write_onnx(model, folder / "model.onnx")
        _check_same(model, load(folder))

    def quantise(folder: Path) -> None:
        from vitreous.exporting.onnx import MOST_BYTES
        from vitreous.exporting.precision import reduce_precision

        make(folder, MOST_BYTES)
        path, seen = folder / "model.onnx", _drawn_images(load_classifier(weights).preprocess)
        reduce_precision(path, path, "int8", seen)

    how = {"float32": "float32", "int8": "int8 but for towering channels"}[engine.precision]
    kind = _kind(f"onnx {how} {version_of('onnxruntime')}", features)
    by_precision = {"float32": make, "int8": quantise}[engine.precision]
    return open_converted([weights], kind, by_precision, load, _teller(engine, console))


def _drawn_images(preprocess: Preprocess) -> list[np.ndarray]:
    """A few faces as a network takes them: enough to see which of its channels are very large."""
    rng = numpy_stream(0, "conversion")
    faces = (draw_face(expression, max(preprocess.image_size), rng) for expression in EXPRESSIONS)
    return [
        normalise(torch.from_numpy(fit(face, preprocess))[None], preprocess).numpy()
        for face in faces
    ]


def _onnx_network(path: Path, threads: int) -> Network:
    session = open_session(path, threads)
    (name,) = (one.name for one in session.get_inputs())
    return _CpuNetwork(lambda images: session.run(None, {name: images})[0])


def _open_openvino(weights: Path, engine: Engine, console: Console, features: bool) -> Network:
    openvino = import_openvino()
    hints = {"float32": "f32", "bfloat16": "bf16"}

    def load(entry: Path, precision: Precision = engine.precision) -> Network:
        settings = {
            "INFERENCE_PRECISION_HINT": hints[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": engine.threads,
            # Pinned threads would stay where a neighbour is busy.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = openvino_core().compile_model(entry / "model.xml", "CPU", settings)
        return _CpuNetwork(lambda images: compiled([images])[0])

    def make(folder: Path) -> None:
        model = _folded(weights, features)
        config = model.config
        # Two pictures: an axis of length one would be taken for a constant.
        example = torch.zeros(2, config.in_channels, *config.image_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sizes become constants, as they should
            graph = openvino.convert_model(
                model, example_input=example, input=[-1, *example.shape[1:]]
            )
        openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
        _check_same(model, load(folder, "float32"))

    # Weights are kept in float32 whatever the precision, so one entry serves both.
    kind = _kind(f"openvino {version_of('openvino')}", features)
    return open_converted([weights], kind, make, load, _teller(engine, console))


def _kind(format_and_version: str, features: bool) -> str:
    return f"{format_and_version} torch {torch.__version__}{' with features' if features else ''}"


def _teller(engine: Engine, console: Console) -> Callable[[], None]:
    def tell() -> None:
        console.info(
            f"converting the model for {engine.runtime} ({engine.precision}), once for these "
            "weights: takes some seconds"
        )

    return tell


def _check_same(model: ViT | WithFeatures, network: Network) -> None:
    """Compare a conversion with the model that it was made of, on random pictures."""
    shape = (3, model.config.in_channels, *model.config.image_size)
    images = torch.randn(shape, generator=torch_stream(0, "conversion"))
    with torch.inference_mode():
        found, wanted = network(images), model(images)
    count = model.config.num_classes
    off = (F.softmax(found[:, :count], 1) - F.softmax(wanted[:, :count], 1)).abs().max().item()
    if count < wanted.shape[1]:
        features = wanted[:, count:]
        off = max(off, ((found[:, count:] - features).abs().max() / features.abs().max()).item())
    if not off <= TOLERANCE:
        raise VitreousError(
            f"the converted model differs by {off:.1e} in a probability or feature, more than "
            f"{TOLERANCE:.0e}: use --runtime torch"
        )
