"""A ViT as an ONNX graph, for ONNX Runtime and whatever else reads that format.

The graph begins with normalised pictures and ends with logits; decoding, resizing and names are
not in it. Needs onnx and onnxscript, the extra ``vitreous[onnx]``.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from vitreous.model.features import WithFeatures
from vitreous.model.vit import ViT

#: The first with GELU as one operation; ONNX Runtime has read it since 1.17.
OPSET = 20
INPUT, OUTPUT = "images", "logits"
#: Of the weights that one file has room for; of more the exporter makes a second file.
MOST_BYTES = 1.5e9


def bytes_of(model: nn.Module) -> int:
    """What a model's weights take in float32."""
    return sum(4 * weight.numel() for weight in model.parameters())


def write_onnx(model: ViT | WithFeatures, path: Path) -> None:
    """Write one file with graph and weights; its batch may be of any size.

    Args:
        model: on a CPU in float32, folded or not.
        path: the new file; one that exists is written over, so it belongs beside its place first.

    Shape:
        of the graph: images (batch, channels, height, width) float32 -> logits (batch, classes)
    """
    height, width = model.config.image_size
    # Two pictures: an axis of length one would be taken for a constant.
    images = torch.zeros(2, model.config.in_channels, height, width)
    with torch.no_grad(), silence():
        program = torch.onnx.export(
            model.eval(),
            (images,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


@contextmanager
def silence() -> Iterator[None]:
    """The exporter's notes on its own parts are of no use to whoever asked for an answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
