"""INT8 after training: the ranges, and Q/DQ in the dialect that each engine really executes in INT8."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from eyas.artifacts.bundle import Bundle
from eyas.data.formats import load_dataset
from eyas.errors import UserError
from eyas.export.gates import letterboxed, sample_images
from eyas.export.quantize.calibrate import Histogram
from eyas.export.quantize.executed import check_int8
from eyas.export.quantize.ptq import quantization_of
from eyas.export.quantize.qdq import DIALECTS, Quantized, quantize
from eyas.types import UInt8Array

Graph = tuple[onnx.ModelProto, list[UInt8Array]]


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> Graph:
    index = load_dataset(bundle.folder.parent / "shapes", "train")
    images = [letterboxed([one], bundle.manifest.input, 1) for one in sample_images(index, 6)]
    return onnx.load(bundle.folder / "model.onnx"), images


def test_a_histogram_holds_the_percentile_and_zero() -> None:
    histogram = Histogram()
    values = np.random.default_rng(0).normal(3, 1, 100_000).astype(np.float32)
    for part in np.split(values, 10):
        histogram.add(part)
    histogram.add(np.array([500.0, 0, 0, 0], np.float32))
    assert histogram.counts.sum() == 100_004 and histogram.limit == 512
    low, high = histogram.range(99.9)
    assert -2.0 <= low <= 0 and abs(high - np.percentile(values, 99.9)) < 1.0  # a bin is half a unit wide
    assert histogram.range(100)[1] == pytest.approx(500, abs=0.5)


def test_clipping_for_the_least_error() -> None:
    histogram = Histogram()
    values = np.abs(np.random.default_rng(0).normal(0, 1, 200_000)).astype(np.float32)
    histogram.add(np.append(values, np.float32(30)))  # one far away makes every step ten times coarser

    def error(high: float) -> float:
        step = high / 255
        return float(((np.clip(np.round(values / step), 0, 255) * step - values) ** 2).sum() + max(0, 30 - high) ** 2)

    low, high = histogram.best()
    assert low == 0 and 4 < high < 30
    tried = [error(x) for x in np.linspace(4, 30, 60)]
    assert error(high) < 1.1 * min(tried) and error(30) > 1.2 * min(tried)


def test_growing_by_doubling_counts_as_if_at_once() -> None:
    values = np.random.default_rng(1).normal(0, 1, 4000).astype(np.float32)
    slow, fast = Histogram(), Histogram()
    for value in sorted(values, key=abs):
        slow.add(value[None])
    fast.add(values)
    assert slow.limit == fast.limit and (slow.counts == fast.counts).all()


def test_a_tensor_of_zeros_has_an_empty_range() -> None:
    histogram = Histogram()
    histogram.add(np.zeros(100, np.float32))
    assert histogram.range() == (0, 0)


@pytest.mark.parametrize("target", DIALECTS)
def test_each_dialect(graph: Graph, target: str) -> None:
    model, images = graph
    result = quantize(model, quantization_of(model, images), target)
    constants = {one.name: numpy_helper.to_array(one) for one in result.model.graph.initializer}
    readers = {node.output[0]: node for node in result.model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = {node.name: node for node in result.model.graph.node if node.op_type in ("Conv", "ConvTranspose")}
    assert len(result.kept) == 6  # classes and distances on three levels
    kinds = set()
    for name in result.convolutions:
        data, weight = (readers[one] for one in convolutions[name].input[:2])
        assert constants[weight.input[0]].dtype == np.int8 and constants[weight.input[1]].ndim == 1  # a scale a channel
        assert constants[data.input[1]].ndim == 0
        zero = constants[data.input[2]]
        kinds.add((zero.dtype.name, bool(DIALECTS[target].symmetric) and zero != 0))
        bias = convolutions[name].input[2]
        if DIALECTS[target].integer_bias:
            assert constants[readers[bias].input[0]].dtype == np.int32
        else:
            assert constants[bias].dtype == np.float32
    assert kinds == {("int8" if DIALECTS[target].symmetric else "uint8", False)}
    for name in result.kept:
        assert convolutions[name].input[1] in constants
    counts = check_int8(result, target)
    assert counts["int8"] >= len(result.convolutions) > 20
    expected, got = (run(one, images[0]) for one in (model, result.model))
    assert np.abs(got[1] - expected[1]).mean() < 0.05 and not np.array_equal(got[1], expected[1])


def run(model: onnx.ModelProto, images: UInt8Array) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": images}))


def test_a_dialect_that_the_engine_does_not_execute_in_int8_is_found(graph: Graph) -> None:
    foreign = quantize(graph[0], quantization_of(*graph), "openvino")
    with pytest.raises(UserError, match="do not run in INT8"):
        check_int8(foreign, "onnxruntime")
    plain = Quantized(graph[0], foreign.convolutions, ())
    with pytest.raises(UserError, match="do not run in INT8"):
        check_int8(plain, "openvino")


def test_nothing_to_quantize() -> None:
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Cast", ["images"], ["boxes"], to=TensorProto.FLOAT)
    ends = [value("images", TensorProto.UINT8, [1])], [value("boxes", TensorProto.FLOAT, [1])]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", *ends))
    with pytest.raises(UserError, match="no convolution"):
        quantization_of(model, [])
