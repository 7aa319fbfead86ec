"""A student as ONNX graphs: LR images -> SR images; or in halves, LR image -> IDR and LR image with IDR -> SR image.

The networks have a dozen kinds of operation, so the graphs are written down node by node: in a fraction of a second,
whatever the version of torch, and with nothing but height and width left open.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from onnx import ModelProto
from torch import Tensor

from mrda_arch import MRDANet
from mrda_arch.collapse import MIN_SIDE, SIZE, CollapsedUpscaler, collapse_upscaler
from mrda_arch.den_arch import DEN
from mrda_arch.rdan_arch import RDAN, RDAConv
from mrda_inference.onnx_nodes import Graph
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize

END = 2**31 - 1  # of a slice without end
REACH = 2  # of the bicubic kernel, source pixels


def onnx_halves(net: MRDANet) -> tuple[ModelProto, ModelProto]:
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
    net = collapse_upscaler(_copy(net))
    lq, idr = [1, 3, "height", "width"], [1, net.den.mlp[-1].out_features]
    sr = [1, 3, f"{net.upscale}*height", f"{net.upscale}*width"]
    graph = Graph()
    encode = graph.model({"lq": lq}, {"idr": idr}, _den(graph, net.den, "lq"))
    graph = Graph()
    return encode, graph.model({"lq": lq, "idr": idr}, {"sr": sr}, _rdan(graph, net.rdan, "lq", "idr"))


def onnx_whole(net: MRDANet, dtype: torch.dtype = torch.float32) -> ModelProto:
    """A student for RGB images as one graph, any number of images of one size.

    A convolution by kernels that are computed takes one image at a time, so the network is the body of a Scan over the
    images; for one image that costs nothing. What is said of a collapsed tail at `onnx_halves` holds here too.

    Args:
        net: left as it is.
        dtype: of the convolutions, float32 or float16. The images, the bicubic base and the mean over the features that
            becomes the representation are float32 in either case.

    Returns:
        `input` (batch, 3, height, width) in [0, 1] -> `output` (batch, 3, upscale height, upscale width), not clipped.

    Raises:
        UserError: the network's modulation is not `rdam`.
    """
    net = collapse_upscaler(_copy(net))
    mean = net.rdan.mean
    net.to(dtype).rdan.mean = mean  # what the base is like
    one = Graph()
    lq = one.add("Unsqueeze", "image", torch.tensor([0]))
    sr = _rdan(one, net.rdan, lq, _den(one, net.den, lq))
    sr = one.add("Squeeze", sr, torch.tensor([0]))
    sides = [f"{net.upscale}*height", f"{net.upscale}*width"]
    body = one.part({"image": [3, "height", "width"]}, {"enlarged": [3, *sides]}, sr)
    graph = Graph()
    images = graph.add("Scan", "input", body=body, num_scan_inputs=1)
    return graph.model({"input": ["batch", 3, "height", "width"]}, {"output": ["batch", 3, *sides]}, images)


def onnx_plain(net: MRDANet) -> ModelProto:
    """A student for one RGB image in operations that every converter knows: no Scan, no indices that are computed.

    Args:
        net: left as it is.

    Returns:
        `input` (1, 3, height, width), 2 pixels or more a side -> `output` as in `onnx_whole`; float32.

    Raises:
        UserError: the network's modulation is not `rdam`.
    """
    net, graph = _copy(net), Graph()
    sr = _rdan(graph, net.rdan, "input", _den(graph, net.den, "input"), _bicubic_convolution)
    sides = [f"{net.upscale}*height", f"{net.upscale}*width"]
    return graph.model({"input": [1, 3, "height", "width"]}, {"output": [1, 3, *sides]}, sr)


def _copy(net: MRDANet) -> MRDANet:
    """A copy to write down, float32 on the CPU."""
    modulation = net.hyper_parameters(net.state_dict())["modulation"]
    if modulation != "rdam":
        raise UserError(f"modulation: {modulation}; only networks with rdam become ONNX graphs, take --backend torch")
    return deepcopy(net).cpu().float()


def _den(graph: Graph, den: DEN, lq: str) -> str:
    """`DEN.forward` of float32 images, in the type of its weights; the mean is taken in float32."""
    dtype = den.mlp[0].weight.dtype
    feat = graph.layers(den.body, graph.cast(lq, torch.float32, dtype))
    mean = graph.add("ReduceMean", graph.cast(feat, dtype, torch.float32), axes=[2, 3], keepdims=0)
    return graph.layers(den.mlp, graph.cast(mean, torch.float32, dtype))


def _rdan(graph: Graph, rdan: RDAN, lq: str, idr: str, bicubic: Callable[[Graph, str, int], str] | None = None) -> str:
    """`RDAN.forward` of a float32 image, in the type of its weights; the base is float32."""
    dtype = rdan.head.weight.dtype
    head = graph.layers(rdan.head, graph.cast(graph.add("Sub", lq, rdan.mean), torch.float32, dtype))
    cond = graph.layers(rdan.compress, idr)
    feat = head
    for block in rdan.blocks:
        x = graph.leaky_relu(_rda_conv(graph, block.rda1, feat, cond))
        x = graph.leaky_relu(graph.layers(block.conv1, x))
        x = graph.leaky_relu(_rda_conv(graph, block.rda2, x, cond))
        feat = graph.add("Add", graph.layers(block.conv2, x), feat)
    feat = graph.add("Add", graph.layers(rdan.body_tail, feat), head)
    is_collapsed = isinstance(rdan.upscaler, CollapsedUpscaler)
    out = _collapsed(graph, rdan.upscaler, feat) if is_collapsed else graph.layers(rdan.upscaler, feat)
    base = (bicubic or _bicubic)(graph, lq, rdan.upscale) if rdan.use_global_residual else rdan.mean
    return graph.add("Add", graph.cast(out, dtype, torch.float32), base)


def _rda_conv(graph: Graph, layer: RDAConv, feat: str, cond: str) -> str:
    """`RDAConv.forward` of one sample."""
    channels = layer.modulation.in_channels
    kernel = graph.add("Reshape", graph.layers(layer.kernel, cond), torch.tensor([channels, 1, 3, 3]))
    dynamic = graph.add("Conv", feat, kernel, group=channels, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    share = graph.add("Sigmoid", graph.layers(layer.modulation, feat))
    return graph.add("Add", graph.add("Mul", share, graph.leaky_relu(dynamic)), feat)


def _collapsed(graph: Graph, upscaler: CollapsedUpscaler, feat: str) -> str:
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


def _bicubic_weights(scale: int) -> Tensor:
    """(5, scale): weight of a source pixel and of its neighbours, REACH on each side, in the pixels that it becomes."""
    impulses = torch.eye(2 * REACH + 1, dtype=torch.float64)[..., None]
    return imresize(impulses, scale)[:, REACH * scale : (REACH + 1) * scale, 0].float()


def _bicubic(graph: Graph, x: str, scale: int) -> str:
    """`imresize` by an integer factor.

    Every source pixel's outputs have the same weights, so those are constants; the indices depend on the size and are
    computed. A convolution would be shorter, but runtimes that compute in bfloat16 would round the base with it.
    """
    weights = _bicubic_weights(scale)[..., None]
    zero, one, factor = (torch.tensor(number) for number in (0, 1, scale))
    for axis in (2, 3):
        size = graph.add("Squeeze", graph.add("Shape", x, start=axis, end=axis + 1))
        period = graph.add("Mul", size, torch.tensor(2))
        last = graph.add("Sub", period, one)
        output = graph.add("Range", zero, graph.add("Mul", size, factor), one)
        source, phase = graph.add("Div", output, factor), graph.add("Mod", output, factor)
        terms = []
        for tap, weight in enumerate(weights):
            index = graph.add("Mod", graph.add("Add", source, torch.tensor(tap - REACH)), period)
            mirrored = graph.add("Min", index, graph.add("Sub", last, index))  # the edge included
            share = graph.add("Gather", weight if axis == 2 else weight[:, 0], phase, axis=0)
            terms.append(graph.add("Mul", graph.add("Gather", x, mirrored, axis=axis), share))
        x = graph.add("Sum", *terms)
    return x


def _bicubic_convolution(graph: Graph, x: str, scale: int) -> str:
    """The same for images of 2 pixels or more a side: mirrored borders of REACH pixels, a convolution, a shuffle."""
    for axis in (2, 3):
        before = [graph.slice(x, axis, i, i + 1) for i in reversed(range(REACH))]
        after = [graph.slice(x, axis, -i - 1, -i or END) for i in range(REACH)]
        x = graph.add("Concat", *before, x, *after, axis=axis)
    weights = _bicubic_weights(scale)
    kernels = torch.einsum("ay,bx->yxab", weights, weights).reshape(1, scale**2, 1, *2 * [len(weights)])
    return graph.add(
        "DepthToSpace",
        graph.add("Conv", x, kernels.expand(3, -1, -1, -1, -1).flatten(0, 1), group=3),
        blocksize=scale,
        mode="CRD",
    )
