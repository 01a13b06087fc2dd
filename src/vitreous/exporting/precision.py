"""The network of an ONNX file in fewer bits; what prepares a picture and reads an answer stays.

Works on whatever begins with a picture and ends with the answer of a network: a sealed file, or a
network alone. Needs onnx, and onnxruntime for `int8`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitreous.exporting.libraries import import_onnxruntime, open_session
from vitreous.exporting.onnx import silence

#: "int8": weights and what they are multiplied with, in whole numbers; "int8-weights" and "fp16":
#: weights are kept so, and computed with in float32.
Reduced = Literal["int8", "int8-weights", "fp16"]

#: Rounding to 256 steps may move a typical channel by this share of its size. In ViT-Ti/16 the one
#: product that loses accuracy stands at 1.6, all others below 0.13.
_MOST_NOISE = 0.25
#: One in so many channels, at most, is computed apart; a product that needs more stays as it is.
_APART = 16
#: Values; smaller tensors aren't worth an operation.
_WORTH = 1024
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def reduce_precision(
    source: Path, path: Path, precision: Reduced, pictures: Sequence[np.ndarray]
) -> None:
    """Write a copy of an ONNX file whose network has fewer bits; its metadata stay.

    Args:
        source: the file, in float32.
        path: the new one; what stands there is written over. It may be `source`.
        precision: of the copy.
        pictures: some values of the graph's input, of any kind, for "int8": which channels are too
            large for 256 steps hardly depends on what is to be seen.
    """
    import onnx

    model = onnx.load(source)
    if precision == "int8":
        _compute_in_int8(model, path, pictures)
        return
    _keep_small(model.graph, precision)
    onnx.save(model, path)


def _compute_in_int8(model: Any, path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Round both sides of the products with weights: weights by channel, the others as they come.

    Channels that tower above the others, as in most large Transformers, are computed apart in
    float32: one of them makes the step so wide that all else is rounded to nothing.

    Reference:
        Dettmers et al. 2022, "LLM.int8()", section 3.2; Sun et al. 2024, "Massive Activations in
        Large Language Models", section 5 for ViTs.
    """
    import onnx

    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    metadata = {one.key: one.value for one in model.metadata_props}
    rounded = []
    for product, apart in zip(_products(model.graph), _towering(model, pictures), strict=True):
        if apart is None or (len(apart) and product.op_type != "MatMul"):
            continue
        if len(apart):
            _compute_apart(model.graph, product, apart)
        rounded.append(product.name)
    onnx.save(model, path)
    if not rounded:
        return
    with silence():
        quantize_dynamic(
            path,
            path,
            nodes_to_quantize=rounded,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    write_metadata(path, metadata)


def write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Let an ONNX file say this of itself and nothing else."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def _products(graph: Any) -> list[Any]:
    """The products of the network with its weights, on the way to the graph's first output."""
    weights = _weights(graph)
    way = _way_to_answer(graph)
    return [
        node
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and node.output[0] in way
        and node.input[1] in weights
        and len(weights[node.input[1]].dims) == 2
    ]


def _weights(graph: Any) -> dict[str, Any]:
    """Constants of float32 by name, those that are worth the trouble."""
    import onnx

    return {
        one.name: one
        for one in graph.initializer
        if one.data_type == onnx.TensorProto.FLOAT and np.prod(one.dims) >= _WORTH
    }


def _way_to_answer(graph: Any) -> set[str]:
    """All names that the first output is computed from; how strange a picture is, is another."""
    makers = {name: node for node in graph.node for name in node.output}
    reached: set[str] = set()
    waiting = [graph.output[0].name]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += makers[name].input if name in makers else []
    return reached


def _towering(model: Any, pictures: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Of each product the channels to be computed apart, none for most; ``None``: too many."""
    import onnx

    inputs = [product.input[0] for product in _products(model.graph)]
    if not inputs:
        return []
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    there = {one.name for one in probe.graph.output}
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in dict.fromkeys(inputs)
        if name not in there
    )
    session = open_session(probe.SerializeToString(), threads=1)
    (fed,) = (one.name for one in session.get_inputs())
    found = [
        [_reach(values) for values in session.run(inputs, {fed: picture})] for picture in pictures
    ]
    return [_apart(np.stack(reaches)) for reaches in zip(*found, strict=True)]


def _reach(values: np.ndarray) -> np.ndarray:
    """The lowest and highest value of each channel, in sizes (root mean square) of a typical one.

    Shape:
        (..., channels) -> (2, channels)
    """
    tokens = values.reshape(-1, values.shape[-1])
    typical = np.median(np.sqrt(np.square(tokens).mean(0)))
    return np.stack([tokens.min(0), tokens.max(0)]) / max(typical, np.finfo(np.float32).tiny)


def _apart(reaches: np.ndarray) -> np.ndarray | None:
    """The fewest channels without which 256 steps tell the others finely enough.

    Shape:
        (pictures, 2, channels) -> (channels apart,)
    """
    low, high = reaches[:, 0].min(0), reaches[:, 1].max(0)
    order = np.argsort(-np.maximum(high, -low))
    for count in range(len(order) // _APART + 1):
        rest = order[count:]
        step = (max(high[rest].max(), 0.0) - min(low[rest].min(), 0.0)) / 255
        if step / np.sqrt(12) <= _MOST_NOISE:  # the standard deviation of rounding
            return order[:count]
    return None


def _compute_apart(graph: Any, product: Any, channels: np.ndarray) -> None:
    """Let a product see zeros in some channels, and add what they give in float32."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.to_array(_weights(graph)[product.input[1]])
    values, given, name = product.input[0], product.output[0], product.name
    others = np.ones(len(weight), np.float32)
    others[channels] = 0
    for key, value in (("others", others), ("channels", channels), ("weight", weight[channels])):
        graph.initializer.append(numpy_helper.from_array(value, f"{name}/{key}"))
    product.input[0], product.output[0] = f"{name}/rest", f"{name}/of_rest"
    at = list(graph.node).index(product)
    before = [
        helper.make_node("Mul", [values, f"{name}/others"], [f"{name}/rest"], f"{name}/mask"),
        helper.make_node("Gather", [values, f"{name}/channels"], [f"{name}/apart"],
                         f"{name}/gather", axis=-1),
        helper.make_node("MatMul", [f"{name}/apart", f"{name}/weight"], [f"{name}/of_apart"],
                         f"{name}/matmul"),
    ]  # fmt: skip
    after = helper.make_node("Add", [f"{name}/of_rest", f"{name}/of_apart"], [given], f"{name}/add")
    graph.node.insert(at + 1, after)
    for node in reversed(before):
        graph.node.insert(at, node)


def _keep_small(graph: Any, precision: Reduced) -> None:
    """Keep weights in fewer bits; a runtime turns them back once, when it loads the graph."""
    from onnx import TensorProto, helper, numpy_helper

    way, rows = _way_to_answer(graph), _output_axes(graph)
    nodes = []
    for name, constant in _weights(graph).items():
        value = numpy_helper.to_array(constant)
        if name not in way or (precision == "int8-weights" and name not in rows):
            continue
        small = f"{name}/{precision}"
        if precision == "fp16":
            if np.abs(value).max() > _FLOAT16_MAX:
                continue
            kept = value.astype(np.float16)
            nodes.append(helper.make_node("Cast", [small], [name], small, to=TensorProto.FLOAT))
        else:
            kept, scale = _round_weight(value, rows[name])
            graph.initializer.append(numpy_helper.from_array(scale, f"{small}/scale"))
            nodes += [
                helper.make_node("Cast", [small], [f"{small}/whole"], small, to=TensorProto.FLOAT),
                helper.make_node(
                    "Mul", [f"{small}/whole", f"{small}/scale"], [name], f"{small}/scaled"
                ),
            ]
        graph.initializer.append(numpy_helper.from_array(kept, small))
        graph.initializer.remove(constant)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _output_axes(graph: Any) -> dict[str, int]:
    """Of each matrix or kernel the axis of what it gives."""
    axes = {name: 0 for name, one in _weights(graph).items() if len(one.dims) == 4}
    for product in _products(graph):
        turned = any(one.name == "transB" and one.i for one in product.attribute)
        axes[product.input[1]] = 0 if turned else 1
    return axes


def _round_weight(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers from -127 to 127, and a scale for each channel along an axis."""
    others = tuple(at for at in range(weight.ndim) if at != axis)
    largest = np.abs(weight).max(others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.round(weight / scale).astype(np.int8), scale
