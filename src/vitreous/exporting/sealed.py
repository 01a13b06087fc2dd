"""A classifier as one graph: an upright RGB picture of any size in, probabilities out.

Resizing, cropping, normalising, the mirror image, the network and softmax are inside, the
temperature is in the head already, and strangeness is a second output where the classifier can tell
what is none of these. The metadata says the rest (see `contract`). Needs onnx and onnxscript for
ONNX, the extra ``vitreous[onnx]``, and openvino too for OpenVINO.
"""

import copy
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.data.preprocess import normalise
from vitreous.evaluation.refusal import FEATURES, LOOKS, Refusal, looks_of
from vitreous.exporting.contract import PICTURE, PROBABILITIES, STRANGENESS, Contract
from vitreous.exporting.fitting import Fit
from vitreous.exporting.libraries import import_openvino
from vitreous.exporting.onnx import OPSET, silence
from vitreous.model.features import WithFeatures
from vitreous.model.fold import fold
from vitreous.training.classifier import Classifier

#: An example to trace with; neither side is one that a trace would take for a constant.
_EXAMPLE = (37, 53, 3)


class Sealed(nn.Module):
    """All that is computed between a picture and its answer.

    Args:
        classifier: what answers; it stays as it is.
        refusal: what tells how strange a picture is, if anything does.

    Shape:
        (height, width, 3) uint8 -> (classes,) float32; with a refusal also (views,) float32
    """

    def __init__(self, classifier: Classifier, refusal: Refusal | None) -> None:
        super().__init__()
        self.fit = Fit(classifier.preprocess)
        model = fold(copy.deepcopy(classifier.model).cpu())
        self.model = WithFeatures(model) if refusal else model
        self._preprocess, self._refusal = classifier.preprocess, refusal
        self._num_classes = model.config.num_classes
        self.eval().requires_grad_(False)

    def forward(self, picture: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        pixels = self.fit(picture)[None]
        images = normalise(pixels, self._preprocess)
        if self._preprocess.mirror:
            images = torch.cat([images, images.flip(-1)])
        outputs = self.model(images)
        probabilities = outputs[:, : self._num_classes].softmax(1).mean(0)
        if self._refusal is None:
            return probabilities
        numbers = {LOOKS: looks_of(pixels), FEATURES: outputs[:1, self._num_classes :]}
        return probabilities, self._refusal.strangeness(numbers)[0].float()

    @property
    def outputs(self) -> list[str]:
        """Their names, in order."""
        return [PROBABILITIES, STRANGENESS] if self._refusal else [PROBABILITIES]


def write_onnx(sealed: Sealed, contract: Contract, path: Path) -> None:
    """Write one ONNX file, over what stands there."""
    with torch.no_grad(), silence():
        program = torch.onnx.export(
            sealed,
            (torch.zeros(_EXAMPLE, dtype=torch.uint8),),
            input_names=[PICTURE],
            output_names=sealed.outputs,
            dynamic_shapes=_any_size(),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.searchsorted.Tensor: _count_smaller()},
        )
    assert program is not None
    program.model.metadata_props.clear()
    program.model.metadata_props.update(contract.to_metadata())
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # lines of the source, with the folders of this machine
    program.save(path, external_data=False)


def write_torch(sealed: Sealed, contract: Contract, path: Path) -> None:
    """Write one file for `torch.export.load`, over what stands there."""
    with torch.no_grad(), silence():
        program = torch.export.export(
            sealed,
            (torch.zeros(_EXAMPLE, dtype=torch.uint8),),
            dynamic_shapes=_any_size(),
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=contract.to_metadata())
    path.write_bytes(buffer.getvalue())


def write_openvino(onnx_file: Path, contract: Contract, path: Path) -> None:
    """Convert an ONNX file of `write_onnx` to an ``.xml`` with a ``.bin`` beside it."""
    openvino = import_openvino()
    graph = openvino.convert_model(onnx_file)
    for key, value in contract.to_metadata().items():
        graph.set_rt_info(value, [key])
    openvino.save_model(graph, path, compress_to_fp16=False)


def _any_size() -> tuple[Any, ...]:
    return ({0: torch.export.Dim("height", min=1), 1: torch.export.Dim("width", min=1)},)


def _count_smaller() -> Any:
    """How `torch.searchsorted` is said in ONNX, which has no such operation."""
    from onnx import TensorProto
    from onnxscript import opset20

    op: Any = opset20  # its own annotations leave out that lists become tensors

    def count_smaller(
        values: Any,
        numbers: Any,
        out_int32: bool = False,
        right: bool = False,
        side: str | None = None,
        sorter: Any = None,
    ) -> Any:
        smaller = op.Cast(op.Less(values, op.Unsqueeze(numbers, [1])), to=TensorProto.INT64)
        return op.ReduceSum(smaller, [1], keepdims=0)

    return count_smaller
