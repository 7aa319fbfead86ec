"""An ONNX graph in the making: nodes are appended one by one and named."""

from __future__ import annotations

from typing import TypeAlias

import torch
from onnx import GraphProto, ModelProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor, nn

from mrda_arch.arch_util import NEGATIVE_SLOPE

OPSET, IR_VERSION = 17, 8  # of onnxruntime 1.12 (2022) and later

Value: TypeAlias = str | Tensor
"""What a node reads: another node's output by its name, or a constant."""
Shapes: TypeAlias = dict[str, list]
"""Names and shapes; a text stands for a size that is left open."""


class Graph:
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

    def cast(self, x: str, source: torch.dtype, target: torch.dtype) -> str:
        """`x` of type `source` as `target`; a node where they differ."""
        to = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}[target]
        return x if source == target else self.add("Cast", x, to=to)

    def part(self, inputs: Shapes, output: Shapes, value: str) -> GraphProto:
        """The finished graph of a model, or of a node that has one.

        Args:
            inputs: float32, with their shapes.
            output: likewise; one.
            value: what becomes the output.
        """
        (name,) = output
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        given, made = (
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in side.items()]
            for side in (inputs, output)
        )
        return helper.make_graph(self.nodes, name, given, made, self.constants)

    def model(self, inputs: Shapes, output: Shapes, value: str) -> ModelProto:
        """The finished model, checked; its arguments are those of `part`."""
        graph, opset = self.part(inputs, output, value), [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="mrda", opset_imports=opset, ir_version=IR_VERSION)
        checker.check_model(model)
        return model
