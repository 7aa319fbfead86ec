"""The two halves of a student as ONNX graphs: LR image -> IDR, and LR image with IDR -> SR image.

The networks have a dozen kinds of operation, so the graphs are written down node by node: in a fraction of a second,
whatever the version of torch, and with nothing but height and width left open.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TypeAlias

import torch
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor, nn

from mrda_arch import MRDANet
from mrda_arch.arch_util import NEGATIVE_SLOPE
from mrda_arch.collapse import MIN_SIDE, SIZE, CollapsedUpscaler, collapse_upscaler
from mrda_arch.den_arch import DEN
from mrda_arch.rdan_arch import RDAN, RDAConv
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize

OPSET, IR_VERSION = 17, 8  # of onnxruntime 1.12 (2022) and later
END = 2**31 - 1  # of a slice without end

Value: TypeAlias = str | Tensor
"""What a node reads: another node's output by its name, or a constant."""


class _Graph:
    """Nodes and constants of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.constants: list = []

    def add(self, kind: str, *inputs: Value, **attributes: object) -> str:
        """Append a node; return the name of its output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self._name(value) for value in inputs], [name], name, **attributes))
        return name

    def _name(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.detach().cpu().numpy(), name))
        return name

    def layers(self, layers: nn.Module, x: Value) -> str:
        """Apply a layer of the networks, or a sequence of them."""
        if isinstance(layers, nn.Sequential):
            for layer in layers:
                x = self.layers(layer, x)
            return x
        if isinstance(layers, nn.Conv2d):
            attributes = {"pads": [*layers.padding, *layers.padding], "strides": [*layers.stride]}
            return self.add("Conv", x, layers.weight, layers.bias, **attributes)
        if isinstance(layers, nn.Linear):
            bias = [] if layers.bias is None else [layers.bias]
            return self.add("Gemm", x, layers.weight, *bias, transB=1)
        if isinstance(layers, nn.LeakyReLU):
            return self.leaky_relu(x)
        if isinstance(layers, nn.PixelShuffle):
            return self.add("DepthToSpace", x, blocksize=layers.upscale_factor, mode="CRD")
        raise TypeError(f"{type(layers).__name__}: no such layer in the networks")

    def leaky_relu(self, x: Value) -> str:
        """The networks' only non-linearity."""
        return self.add("LeakyRelu", x, alpha=NEGATIVE_SLOPE)

    def slice(self, x: Value, axis: int, start: int, stop: int) -> str:
        """`x[start:stop]` along one axis."""
        return self.add("Slice", x, *(torch.tensor([number]) for number in (start, stop, axis)))

    def model(self, inputs: dict[str, list], output: dict[str, list], value: str) -> ModelProto:
        """The finished graph, checked.

        Args:
            inputs: their names and shapes, in which a text stands for a size that is left open.
            output: likewise.
            value: what becomes the output.
        """
        (name,) = output
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        given, made = (
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in side.items()]
            for side in (inputs, output)
        )
        graph = helper.make_graph(self.nodes, name, given, made, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="mrda", opset_imports=opset, ir_version=IR_VERSION)
        checker.check_model(model)
        return model


def onnx_graphs(net: MRDANet) -> tuple[ModelProto, ModelProto]:
    """The two halves of a student for RGB images, float32, for one image of any height and width.

    A tail with more than one convolution is collapsed; both sides of the image must then be 3 pixels or more
    (`mrda_arch.collapse.MIN_SIDE`).

    Args:
        net: left as it is.

    Returns:
        encode: `lq` (1, 3, height, width) in [0, 1] -> `idr` (1, 4 den_feat).
        restore: `lq`, `idr` -> `sr` (1, 3, upscale height, upscale width), not clipped.

    Raises:
        UserError: the network's modulation is not `rdam`.
    """
    modulation = net.hyper_parameters(net.state_dict())["modulation"]
    if modulation != "rdam":
        raise UserError(f"modulation: {modulation}; only networks with rdam become ONNX graphs, take --backend torch")
    net = collapse_upscaler(deepcopy(net).cpu().float())
    lq, idr = [1, 3, "height", "width"], [1, net.den.mlp[-1].out_features]
    sr = [1, 3, f"{net.upscale}*height", f"{net.upscale}*width"]
    graph = _Graph()
    encode = graph.model({"lq": lq}, {"idr": idr}, _den(graph, net.den))
    graph = _Graph()
    return encode, graph.model({"lq": lq, "idr": idr}, {"sr": sr}, _rdan(graph, net.rdan))


def _den(graph: _Graph, den: DEN) -> str:
    """`DEN.forward`."""
    return graph.layers(den.mlp, graph.add("ReduceMean", graph.layers(den.body, "lq"), axes=[2, 3], keepdims=0))


def _rdan(graph: _Graph, rdan: RDAN) -> str:
    """`RDAN.forward`."""
    head = graph.layers(rdan.head, graph.add("Sub", "lq", rdan.mean))
    cond = graph.layers(rdan.compress, "idr")
    feat = head
    for block in rdan.blocks:
        x = graph.leaky_relu(_rda_conv(graph, block.rda1, feat, cond))
        x = graph.leaky_relu(graph.layers(block.conv1, x))
        x = graph.leaky_relu(_rda_conv(graph, block.rda2, x, cond))
        feat = graph.add("Add", graph.layers(block.conv2, x), feat)
    feat = graph.add("Add", graph.layers(rdan.body_tail, feat), head)
    is_collapsed = isinstance(rdan.upscaler, CollapsedUpscaler)
    out = _collapsed(graph, rdan.upscaler, feat) if is_collapsed else graph.layers(rdan.upscaler, feat)
    return graph.add("Add", out, _bicubic(graph, "lq", rdan.upscale) if rdan.use_global_residual else rdan.mean)


def _rda_conv(graph: _Graph, layer: RDAConv, feat: str, cond: str) -> str:
    """`RDAConv.forward` of one sample."""
    channels = layer.modulation.in_channels
    kernel = graph.add("Reshape", graph.layers(layer.kernel, cond), torch.tensor([channels, 1, 3, 3]))
    dynamic = graph.add("Conv", feat, kernel, group=channels, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    share = graph.add("Sigmoid", graph.layers(layer.modulation, feat))
    return graph.add("Add", graph.add("Mul", share, graph.leaky_relu(dynamic)), feat)


def _collapsed(graph: _Graph, upscaler: CollapsedUpscaler, feat: str) -> str:
    """`CollapsedUpscaler.forward`."""
    sides = ((0, MIN_SIDE), (0, END), (-MIN_SIDE, END))
    lines = []
    for row in range(3):
        line = feat if row == 1 else graph.slice(feat, 2, *sides[row])
        parts = []
        for column in range(3):
            part = line if column == 1 else graph.slice(line, 3, *sides[column])
            rows, columns = (slice(*((2, SIZE), (0, SIZE), (0, SIZE - 2))[place]) for place in (row, column))
            weight = upscaler.kernels[row, column, :, :, rows, columns].contiguous()
            pads = 2 * [int(row == 1), int(column == 1)]
            parts.append(graph.add("Conv", part, weight, upscaler.biases[row, column], pads=pads))
        lines.append(graph.add("Concat", *parts, axis=3))
    return graph.add("DepthToSpace", graph.add("Concat", *lines, axis=2), blocksize=upscaler.upscale, mode="CRD")


def _bicubic(graph: _Graph, x: str, scale: int) -> str:
    """`imresize` by an integer factor.

    Every source pixel's outputs have the same weights, so those are constants; the indices depend on the size and are
    computed. A convolution would be shorter, but runtimes that compute in bfloat16 would round the base with it.
    """
    reach = 2  # of the kernel, source pixels
    impulses = torch.eye(2 * reach + 1, dtype=torch.float64)[..., None]
    # (taps, scale, 1): weight of each source pixel in the outputs of the middle one
    weights = imresize(impulses, scale)[:, reach * scale : (reach + 1) * scale, :1].float()
    zero, one, factor = (torch.tensor(number) for number in (0, 1, scale))
    for axis in (2, 3):
        size = graph.add("Squeeze", graph.add("Shape", x, start=axis, end=axis + 1))
        period = graph.add("Mul", size, torch.tensor(2))
        last = graph.add("Sub", period, one)
        output = graph.add("Range", zero, graph.add("Mul", size, factor), one)
        source, phase = graph.add("Div", output, factor), graph.add("Mod", output, factor)
        terms = []
        for tap, weight in enumerate(weights):
            index = graph.add("Mod", graph.add("Add", source, torch.tensor(tap - reach)), period)
            mirrored = graph.add("Min", index, graph.add("Sub", last, index))  # the edge included
            share = graph.add("Gather", weight if axis == 2 else weight[:, 0], phase, axis=0)
            terms.append(graph.add("Mul", graph.add("Gather", x, mirrored, axis=axis), share))
        x = graph.add("Sum", *terms)
    return x
