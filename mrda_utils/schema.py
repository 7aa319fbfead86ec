"""The typed schema of option files: the only place that knows keys, types, units and defaults.

What a registered architecture, loss or metric accepts is read off its signature.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import math
import re
import typing
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Len, Lt
from basicsr.utils import registry
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetPydanticSchema, create_model, model_validator
from torch import nn


def did_you_mean(key: str, known: list[str]) -> str:
    """Advice on an unknown key: the nearest known one, or all of them."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


class Section(BaseModel):
    """A mapping in which an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}, {did_you_mean(str(key), list(cls.model_fields))}")
        return data


def _ordered(pair: list[float]) -> list[float]:
    if not 0 <= pair[0] <= pair[1]:
        raise ValueError(f"{pair} is no range: it needs 0 <= low <= high")
    return pair


def _around_one(pair: list[float]) -> list[float]:
    if not pair[0] <= 1 <= pair[1]:
        raise ValueError(f"{pair} must contain 1")
    return pair


def _whole(probabilities: list[float]) -> list[float]:
    if not math.isclose(sum(probabilities), 1, abs_tol=1e-6):
        raise ValueError(f"{probabilities} must sum to 1, not {sum(probabilities):g}")
    return probabilities


def _ascending(values: list[int]) -> list[int]:
    if values != sorted(values):
        raise ValueError(f"{values} must ascend")
    return values


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even")
    return value


LARGEST_WIDTH = 1024  # of a network: channels, blocks
LARGEST_NETWORK = 2**30  # parameters, 4 GiB
LARGEST_BATCH = 2**28  # pixels that a process crops for an optimizer step, 3 GiB; the paper's has 2**21

Count = Annotated[int, Ge(1)]
Range = Annotated[list[float], Len(2, 2), AfterValidator(_ordered)]
PositiveRange = Annotated[list[Annotated[float, Gt(0)]], Len(2, 2), AfterValidator(_ordered)]
RangeAroundOne = Annotated[PositiveRange, AfterValidator(_around_one)]
ResizeRange = Annotated[
    list[Annotated[float, Gt(0), Le(16)]], Len(2, 2), AfterValidator(_ordered), AfterValidator(_around_one)
]
QualityRange = Annotated[list[Annotated[float, Ge(1), Lt(100)]], Len(2, 2), AfterValidator(_ordered)]
Probability = Annotated[float, Ge(0), Le(1)]
Probabilities = Annotated[list[Probability], AfterValidator(_whole)]
KernelSize = Annotated[int, Ge(3), Le(255), AfterValidator(_odd)]
LargestKernel = Annotated[int, Ge(7), Le(255), AfterValidator(_odd)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
MethodName = Annotated[str, Field(pattern=r"^\w[\w .+-]*$", max_length=100)]


# BasicSR's arguments have no annotations, and its words are not ours
_ARGUMENTS = {
    "loss_weight": Annotated[float, Ge(0), Field(description="factor of this loss")],
    "reduction": Annotated[Literal["mean", "sum"], Field(description="over all values of the batch")],
    "eps": Annotated[float, Gt(0), Field(description="added to the squared error under the root")],
    "crop_border": Annotated[int, Ge(0), Field(description="left out at each side, pixels; the protocols': scale")],
    "test_y_channel": Annotated[bool, Field(description="measure Y (BT.601, 16-235) instead of RGB")],
    "num_in_ch": Annotated[int, Ge(1), Field(description="channels of the image")],
    "num_out_ch": Annotated[int, Ge(1), Field(description="channels of the SR image")],
    "in_chans": Annotated[int, Ge(1), Field(description="channels of the image")],
    "num_feat": Annotated[int, Ge(1), Field(description="channels of the first convolution")],
    "embed_dim": Annotated[int, Ge(1), Field(description="channels of the first convolution")],
    "num_block": Annotated[int, Ge(1), Field(description="residual blocks, of each group where there are groups")],
    "num_group": Annotated[int, Ge(1), Field(description="groups of residual blocks")],
    "num_conv": Annotated[int, Ge(1), Field(description="convolutions between the first and the last")],
    "num_grow_ch": Annotated[int, Ge(1), Field(description="channels that each layer of a dense block adds")],
    "squeeze_factor": Annotated[int, Ge(1), Field(description="channels over those of the attention's bottleneck")],
    "res_scale": Annotated[float, Gt(0), Field(description="factor of each block's residual")],
    "upscale": Annotated[int, Ge(1), Field(description="upscaling factor")],
    "scale": Annotated[int, Ge(1), Field(description="upscaling factor")],
    "img_range": Annotated[float, Gt(0), Field(description="largest value inside the network; images are in [0, 1]")],
    "rgb_mean": Annotated[list[float], Len(3, 3), Field(description="subtracted from the image; RGB in [0, 1]")],
    "act_type": Annotated[Literal["relu", "prelu", "leakyrelu"], Field(description="activation")],
    "img_size": Annotated[int, Ge(1), Field(description="side of the LR patches of the training")],
    "window_size": Annotated[int, Ge(1), Field(description="side of an attention window; LR images are padded to it")],
    "depths": Annotated[list[Count], Field(description="layers of each block")],
    "num_heads": Annotated[list[Count], Field(description="attention heads of each block")],
    "mlp_ratio": Annotated[float, Gt(0), Field(description="hidden channels over embed_dim")],
    "qkv_bias": Annotated[bool, Field(description="bias of query, key and value")],
    "patch_norm": Annotated[bool, Field(description="normalise after the patch embedding")],
    "upsampler": Annotated[
        Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""], Field(description="tail of the network")
    ],
    "resi_connection": Annotated[Literal["1conv", "3conv"], Field(description="convolutions at the end of a block")],
    "skip_connection": Annotated[bool, Field(description="join layers of equal size")],
    "convert_to": Annotated[Literal["y", "gray"], Field(description="measure Y (BT.601, 16-235) or gray")],
}


def _registered(kind: str, *names: str, skip: tuple[str, ...] = (), **fields: Any) -> Any:
    """Type of a mapping `type` + that object's arguments, `type` being in BasicSR's registry of this kind.

    Args:
        kind: ARCH, LOSS, METRIC ...
        names: types that make sense here.
        skip: arguments that do not come from the option file.
        fields: keys beside the arguments: (type, default).
    """

    def find(name: str) -> Any:
        known = dict(iter(getattr(registry, f"{kind}_REGISTRY")))
        return known.get(name) or known[f"{name}_basicsr"]  # BasicSR's own architectures have this suffix

    def model(name: str) -> type[Section]:
        return _signature_model(find(name), name, skip, fields)

    def check(value: dict[str, Any]) -> dict[str, Any]:
        name = value.get("type")
        if name not in names:
            raise ValueError(f"type: {name!r} is not known here, {did_you_mean(str(name), list(names))}")
        checked = model(name).model_validate(value).model_dump(exclude_none=True)
        if inspect.isclass(find(name)):
            for key, item in checked.items() if kind == "ARCH" else ():
                for number in item if isinstance(item, list) else [item]:
                    if type(number) is int and not 1 <= number <= LARGEST_WIDTH:
                        raise ValueError(f"{key}: {number} is not between 1 and {LARGEST_WIDTH}")
            try:  # shows values that do not go together
                built = _build(find(name), {key: item for key, item in checked.items() if key != "type"})
            except Exception as error:  # whatever a constructor makes of them
                raise ValueError(f"{name} cannot be built: {error}") from error
            size = sum(p.numel() for p in built.parameters())
            if size > LARGEST_NETWORK:
                raise ValueError(f"{name} has {size:,d} parameters, more than {LARGEST_NETWORK:,d}")
        return checked

    def json_schema(_: Any, handler: Any) -> dict[str, Any]:
        schemas = [handler(model(name).__pydantic_core_schema__) for name in names]
        return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}

    return Annotated[dict[str, Any], AfterValidator(check), GetPydanticSchema(None, json_schema)]


def _build(target: type, arguments: dict[str, Any]) -> nn.Module:
    """Construct it on the meta device, which costs nothing, or really where that cannot be (SwinIR reads values)."""
    try:
        with torch.device("meta"):
            return target(**arguments)
    except RuntimeError as error:
        if "meta tensors" not in str(error):
            raise
        return target(**arguments)


def _signature_model(target: Any, name: str, skip: tuple[str, ...], extra: dict[str, Any]) -> type[Section]:
    """Keys of the object registered as `name`; our own docstrings describe them."""
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    docstring = inspect.getdoc(target) if target.__module__.startswith("mrda_") else ""
    summary, _, arguments = docstring.partition("Args:\n")
    described = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE))
    fields: dict[str, Any] = {"type": (Annotated[Literal[name], Field(description="registered name")], ...), **extra}
    for parameter in inspect.signature(target).parameters.values():
        key = parameter.name
        if parameter.kind is parameter.VAR_KEYWORD or key in skip:
            continue
        hint = hints.get(key, _ARGUMENTS.get(key, Any))
        if key in described:
            hint = Annotated[hint, Field(description=" ".join(described[key].split()).rstrip("."))]
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        fields[key] = (hint, ... if default is parameter.empty else default)
    return create_model(name, __base__=Section, __doc__=summary.split("\n")[0] or None, **fields)


class Bicubic(Section):
    """MATLAB bicubic downsampling alone."""

    type: Literal["bicubic"] = Field(description="kind of degradation")


class Isotropic(Section):
    """Isotropic Gaussian blur, one width a task."""

    type: Literal["isotropic"] = Field(description="kind of degradation")
    sigma: PositiveRange = Field(description="range of the blur's standard deviation, pixels of gt")
    kernel_size: KernelSize = Field(21, description="pixels, odd")


class Anisotropic(Section):
    """Anisotropic Gaussian blur and noise, one kernel and one noise level a task; angles uniform on [0, pi)."""

    type: Literal["anisotropic"] = Field(description="kind of degradation")
    sigma_x: PositiveRange = Field(description="range of the standard deviation along the first axis, pixels of gt")
    sigma_y: PositiveRange = Field(description="range of the standard deviation along the second axis, pixels of gt")
    noise_sigma_255: Range = Field(description="range of the noise's standard deviation, on the 0-255 scale")
    kernel_size: KernelSize = Field(21, description="pixels, odd")


BlurKernel = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
_BLUR_KERNELS = list(typing.get_args(BlurKernel))
_BLUR_KERNEL_PROB = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]


class RealESRGAN(Section):
    """Real-ESRGAN's second-order degradation under its own option names; defaults are its published values.

    Options ending in 2 are those of the second round.
    """

    type: Literal["realesrgan"] = Field(description="kind of degradation")

    gt_usm: bool = Field(True, description="degrade the ground truth after unsharp masking")
    blur_kernel_size: LargestKernel = Field(21, description="largest blur kernel, pixels, odd; drawn from 7, 9, ...")
    kernel_list: list[BlurKernel] = Field(_BLUR_KERNELS, description="kinds of blur kernels other than sinc")
    kernel_prob: Probabilities = Field(_BLUR_KERNEL_PROB, description="probability of each of them")
    sinc_prob: Probability = Field(0.1, description="of a sinc kernel")
    blur_sigma: PositiveRange = Field([0.2, 3.0], description="standard deviations, pixels")
    betag_range: RangeAroundOne = Field([0.5, 4.0], description="exponent of generalized Gaussians; half of them < 1")
    betap_range: RangeAroundOne = Field([1.0, 2.0], description="exponent of plateau kernels; half of them < 1")
    resize_prob: Annotated[Probabilities, Len(3, 3)] = Field([0.2, 0.7, 0.1], description="up, down, keep")
    resize_range: ResizeRange = Field([0.15, 1.5], description="factor, relative to gt")
    gaussian_noise_prob: Probability = Field(0.5, description="of Gaussian noise; otherwise it is Poisson noise")
    noise_range: Range = Field([1.0, 30.0], description="Gaussian standard deviation, on the 0-255 scale")
    poisson_scale_range: Range = Field([0.05, 3.0], description="factor of the Poisson noise")
    gray_noise_prob: Probability = Field(0.4, description="of equal noise in all channels")
    jpeg_range: QualityRange = Field([30.0, 95.0], description="JPEG quality")

    second_blur_prob: Probability = Field(0.8, description="of a second blur at all")
    blur_kernel_size2: LargestKernel = Field(21, description="likewise; of the final sinc filter too")
    kernel_list2: list[BlurKernel] = Field(_BLUR_KERNELS, description="kinds of blur kernels other than sinc")
    kernel_prob2: Probabilities = Field(_BLUR_KERNEL_PROB, description="probability of each of them")
    sinc_prob2: Probability = Field(0.1, description="of a sinc kernel")
    blur_sigma2: PositiveRange = Field([0.2, 1.5], description="standard deviations, pixels")
    betag_range2: RangeAroundOne = Field([0.5, 4.0], description="exponent of generalized Gaussians")
    betap_range2: RangeAroundOne = Field([1.0, 2.0], description="exponent of plateau kernels")
    resize_prob2: Annotated[Probabilities, Len(3, 3)] = Field([0.3, 0.4, 0.3], description="up, down, keep")
    resize_range2: ResizeRange = Field([0.3, 1.2], description="factor, relative to lq")
    gaussian_noise_prob2: Probability = Field(0.5, description="of Gaussian noise; otherwise it is Poisson noise")
    noise_range2: Range = Field([1.0, 25.0], description="Gaussian standard deviation, on the 0-255 scale")
    poisson_scale_range2: Range = Field([0.05, 2.5], description="factor of the Poisson noise")
    gray_noise_prob2: Probability = Field(0.4, description="of equal noise in all channels")
    jpeg_range2: QualityRange = Field([30.0, 95.0], description="JPEG quality")

    final_sinc_prob: Probability = Field(0.8, description="of a sinc filter at the end")

    @model_validator(mode="after")
    def _kernel_probabilities(self) -> RealESRGAN:
        for kinds, probabilities in (("kernel_list", "kernel_prob"), ("kernel_list2", "kernel_prob2")):
            wanted, given = len(getattr(self, kinds)), len(getattr(self, probabilities))
            if wanted != given:
                raise ValueError(f"{probabilities}: {given} values, but {kinds} has {wanted}")
        return self


Mln = _registered("ARCH", "MLN")
MrdaNet = _registered("ARCH", "MRDANet")
MrdaKernelNet = _registered("ARCH", "MRDAKernelNet")
Discriminator = _registered("ARCH", "UNetDiscriminatorSN")
_SR_NETWORKS = ("MRDANet", "MLN", "EDSR", "MSRResNet", "RCAN", "RRDBNet", "SRVGGNetCompact", "SwinIR")
_TRAINING_ONLY = ("drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint")
_ALWAYS_DEFAULT = ("patch_size", "qk_scale", "norm_layer", "ape")  # of SwinIR; others do not take any image, or no YAML
SRNetwork = _registered("ARCH", *_SR_NETWORKS, skip=(*_TRAINING_ONLY, *_ALWAYS_DEFAULT))
Degradation = Annotated[Bicubic | Isotropic | Anisotropic | RealESRGAN, Field(discriminator="type")]


def _bundled(root: str) -> str:
    if root.startswith("bundled:") and root not in ("bundled:train", "bundled:test"):
        raise ValueError(f"{root!r}, {did_you_mean(root, ['bundled:train', 'bundled:test'])}")
    return root


DataRoot = Annotated[str, AfterValidator(_bundled)]


class TrainSet(Section):
    """Random crops of ground-truth images."""

    name: str = Field(description="for the log")
    type: Literal["GTDataset"] = Field(description="kind of data set")
    dataroot_gt: DataRoot = Field(description="folder of HR images (sub-folders included), .lmdb, or bundled:train")
    gt_size: Count = Field(description="side of the HR crop, pixels, a multiple of scale")
    use_hflip: bool = Field(True, description="flip horizontally and vertically, each with probability 1/2")
    use_rot: bool = Field(True, description="rotate by 90 degrees with probability 1/2")
    skip_corrupt: bool = Field(False, description="leave out damaged or too small images with a warning, not an error")
    tasks_per_gpu: Count = Field(1, description="degradations that one process reads in an optimizer step")
    images_per_task: Count = Field(description="crops under each of them; the batch is the product of both")
    num_worker_per_gpu: Annotated[int, Ge(0), Le(256)] = Field(
        0, description="loader processes; 0 reads in the main process"
    )


class BenchmarkSet(Section):
    """Whole images under every degradation of a protocol."""

    name: Name = Field(description="for log, tables and folders")
    type: Literal["BenchmarkDataset"] = Field(description="kind of data set")
    dataroot_gt: DataRoot = Field(description="folder of HR images, .lmdb, or bundled:test")
    dataroot_lq: str | None = Field(None, description="LR set to read instead of degrading, from test.py --save_lr")
    protocol: Literal["bicubic", "gaussian8", "width", "aniso9_dasr", "aniso9_mrda", "realesrgan"] = Field(
        description="list of kernels and noise levels, see mrda_data/protocols.yml; or Real-ESRGAN's draws"
    )
    kernel_size: KernelSize = Field(21, description="pixels, odd")
    max_images: Count | None = Field(None, description="use the first images only")
    max_side: Count | None = Field(None, description="crop images to this many pixels around the centre")


class LQSet(Section):
    """Own LR images; without ground truth there are neither oracles nor metrics that compare."""

    name: Name = Field(description="for log, tables and folders")
    type: Literal["LQDataset"] = Field(description="kind of data set")
    dataroot_lq: DataRoot = Field(description="folder of LR images, .lmdb, or bundled:test")
    max_images: Count | None = Field(None, description="use the first images only")
    max_side: Count | None = Field(None, description="crop LR images to this many pixels around the centre")


class PairedSet(Section):
    """Real LR images with their ground truth, in pairs by the order of their names."""

    name: Name = Field(description="for log, tables and folders")
    type: Literal["PairedDataset"] = Field(description="kind of data set")
    dataroot_gt: DataRoot = Field(description="folder of HR images, or .lmdb")
    dataroot_lq: DataRoot = Field(description="folder of LR images, or .lmdb")
    max_images: Count | None = Field(None, description="use the first pairs only")


class Adaptation(Section):
    """How MLN adapts to a task (paper Alg. 1 and 2)."""

    inner_lrs: list[Annotated[float, Gt(0)]] = Field(description="alpha of each gradient step; length = steps")
    adapt_per: Literal["task", "image"] = Field("task", description="what has fast weights of its own")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the convolutions while adapting")
    freeze_upscaler: bool = Field(True, description="MLN's upscaler stays as mln_bicubic left it (paper Table VI)")


class Optimizer(Section):
    """Adam (Kingma and Ba 2015)."""

    type: Literal["Adam"] = Field("Adam", description="optimizer")
    lr: Annotated[float, Gt(0)] = Field(description="learning rate at the start, after the warm-up")
    betas: Annotated[list[Annotated[float, Ge(0), Lt(1)]], Len(2, 2)] = Field(
        [0.9, 0.999], description="decay of the gradient's mean and of its square's"
    )
    weight_decay: Annotated[float, Ge(0)] = Field(0.0, description="factor of the L2 penalty")


class MultiStepLR(Section):
    """Learning rate times gamma after each milestone."""

    type: Literal["MultiStepLR"] = Field(description="course of the learning rate")
    milestones: Annotated[list[Count], AfterValidator(_ascending)] = Field([], description="iterations")
    gamma: Annotated[float, Gt(0)] = Field(0.5, description="factor at each milestone")


class CosineAnnealingLR(Section):
    """Learning rate along half a cosine, from `lr` to `eta_min` at `total_iter`."""

    type: Literal["CosineAnnealingLR"] = Field(description="course of the learning rate")
    eta_min: Annotated[float, Ge(0)] = Field(1e-7, description="learning rate at the end")


Scheduler = Annotated[MultiStepLR | CosineAnnealingLR, Field(discriminator="type")]


class Meta(Section):
    """Meta-gradient of MLN (paper Alg. 1)."""

    num_support: Count = Field(description="of images_per_task, those that MLN adapts on; the rest are the query")
    first_order: bool = Field(True, description="plain gradient at the fast weights; false: through the inner steps")


class Distillation(Section):
    """Distillation of the implicit degradation representation (paper Eq. 4 and 5)."""

    type: Literal["IDRDistillLoss"] = Field("IDRDistillLoss", description="registered name")
    kl_weight: Annotated[float, Ge(0)] = Field(1.0, description="lambda_kl of Eq. (6)")
    abs_weight: Annotated[float, Ge(0)] = Field(0.01, description="lambda_abs of Eq. (6)")
    temperature: Annotated[float, Gt(0)] = Field(0.15, description="softmax temperature of Eq. (4)")
    warmup_iter: Annotated[int, Ge(0)] = Field(0, description="first iterations, in which DEN alone trains, by KD")


PixelLoss = _registered("LOSS", "L1Loss", "MSELoss", "CharbonnierLoss")


class Train(Section):
    """What all stages share."""

    total_iter: Count = Field(description="optimizer steps")
    optim_g: Optimizer
    scheduler: Scheduler = Field(default_factory=lambda: MultiStepLR(type="MultiStepLR"))
    warmup_iter: Annotated[int, Ge(0)] = Field(0, description="linear learning-rate warm-up, iterations")
    ema_decay: Annotated[float, Ge(0), Lt(1)] = Field(0.999, description="of the averaged weights; 0: none")
    pixel_opt: PixelLoss = Field({"type": "L1Loss"}, description="Loss between SR and HR image.")
    accumulation_steps: Count = Field(1, description="micro-batches an optimizer step, in each process")
    clip_grad_norm: Annotated[float, Gt(0)] | None = Field(
        None, description="largest norm of network_g's whole gradient"
    )
    max_skipped: Count = Field(
        100, description="stop after this many steps in a row without a finite loss and gradient"
    )


class NetworkTrain(Train):
    """Stages that train `network_g` by a backward pass through it (mln_meta computes in `adaptation.dtype`)."""

    amp: Literal["none", "bf16"] = Field("none", description="network under autocast; losses stay in float32")
    channels_last: bool = Field(False, description="memory format of network_g and its input")
    compile: bool = Field(False, description="torch.compile network_g; needs a C++ compiler on the CPU")


class Perceptual(Section):
    """Distance of VGG19's features (paper Eq. 3), BasicSR's PerceptualLoss."""

    type: Literal["PerceptualLoss"] = Field(description="which loss")
    layer_weights: dict[Annotated[str, Field(pattern=r"^(conv|relu)[1-5]_[1-4]$")], Annotated[float, Gt(0)]] = Field(
        {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0},
        description="weight of each layer's features; conv: before its activation",
    )
    vgg_type: Literal["vgg19"] = Field("vgg19", description="network of the features")
    vgg_weights: str | None = Field(None, description="its ImageNet weights; torch's cache by default")
    use_input_norm: bool = Field(True, description="normalise by ImageNet's mean and deviation")
    range_norm: bool = Field(False, description="images are in [-1, 1]")
    perceptual_weight: Annotated[float, Ge(0)] = Field(1.0, description="weight of the features' distance")
    style_weight: Annotated[float, Ge(0)] = Field(0.0, description="weight of the Gram matrices' distance")
    criterion: Literal["l1", "fro"] = Field("l1", description="distance")


class Gan(Section):
    """Adversarial loss (paper Eq. 3), BasicSR's GANLoss."""

    type: Literal["GANLoss"] = Field(description="which loss")
    gan_type: Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"] = Field("vanilla", description="form")
    real_label_val: float = Field(1.0, description="label of real images")
    fake_label_val: float = Field(0.0, description="label of restored images")
    loss_weight: Annotated[float, Ge(0)] = Field(0.1, description="of the generator's loss; the discriminator's has 1")


class AdversarialTrain(NetworkTrain):
    """Stages that restore images: teacher and student, alone or against a discriminator."""

    l1_gt_usm: bool = Field(False, description="pixel loss against the sharpened ground truth")
    percep_gt_usm: bool = Field(False, description="perceptual loss against the sharpened ground truth")
    gan_gt_usm: bool = Field(False, description="real images of the discriminator are sharpened")
    perceptual_opt: Perceptual | None = Field(None, description="perceptual loss, with network_d only")
    gan_opt: Gan | None = Field(None, description="adversarial loss, with network_d only")
    optim_d: Optimizer | None = Field(None, description="of the discriminator")
    net_d_iters: Count = Field(1, description="the generator takes a step in every so many iterations")
    net_d_init_iters: Annotated[int, Ge(0)] = Field(0, description="first iterations, of the discriminator alone")


class MetaTrain(Train):
    """Training of mln_meta."""

    meta: Meta


class StudentTrain(AdversarialTrain):
    """Training of the student."""

    kd_opt: Distillation = Field(default_factory=Distillation)


def _metric(**fields: Any) -> Any:
    names = ("calculate_psnr", "calculate_ssim", "calculate_niqe", "calculate_lpips")
    return _registered("METRIC", *names, skip=("img", "img2", "input_order"), **fields)


class Metrics(Section):
    """What a test measures: metric name to metric options."""

    metrics: dict[Name, _metric()] = Field(description="Metrics of BasicSR and LPIPS, by a name of your choice.")


Better = Annotated[Literal["higher", "lower"], Field(description="which of two values is the better one")]


class Validation(Section):
    """Validation during training."""

    metrics: dict[Name, _metric(better=(Better, "higher"))] = Field(
        description="Metrics of BasicSR and LPIPS, by a name of your choice."
    )
    val_freq: Count = Field(description="iterations")
    save_best: Name | None = Field(
        None, description="metric by which models/net_g_best.pth is chosen, on the first validation set"
    )

    @model_validator(mode="after")
    def _known_metric(self) -> Validation:
        if self.save_best is not None and self.save_best not in self.metrics:
            raise ValueError(f"save_best: {self.save_best!r}, {did_you_mean(self.save_best, list(self.metrics))}")
        return self


class Wandb(Section):
    """Weights & Biases follows the TensorBoard log, as in BasicSR."""

    project: str = Field(description="project on the server")
    resume_id: str | None = Field(None, description="id of the wandb run to go on with")


class Logger(Section):
    """Log lines and checkpoints."""

    print_freq: Count = Field(100, description="iterations between two lines")
    save_checkpoint_freq: Count = Field(5000, description="iterations between two checkpoints")
    keep_last: Count | None = Field(None, description="checkpoints kept, the newest ones; all by default")
    use_tb_logger: bool = Field(True, description="write a TensorBoard log")
    wandb: Wandb | None = Field(None, description="needs `pip install wandb` and use_tb_logger")

    @model_validator(mode="after")
    def _wandb(self) -> Logger:
        if self.wandb and not self.use_tb_logger:
            raise ValueError("use_tb_logger: false, but wandb follows the TensorBoard log")
        if self.wandb and importlib.util.find_spec("wandb") is None:
            raise ValueError("wandb: not installed; pip install wandb, or leave the section out")
        return self


class RunPath(Section):
    """Files and folders; relative ones are relative to the folder of train.py."""

    experiments_root: str = Field("experiments", description="folder of the training runs")
    resume_state: str | None = Field(None, description="state file to go on from")
    pretrain_network_g: str | None = Field(None, description="weights to start from: a file, or shipped:NAME")


class AdaptingPath(RunPath):
    """Paths of a stage that adapts MLN."""

    pretrain_network_mln: str = Field(description="weights of mln_meta")


class RestoringPath(AdaptingPath):
    """Paths of teacher and student."""

    pretrain_network_d: str | None = Field(None, description="discriminator to start from")


class StudentPath(RestoringPath):
    """Paths of the student."""

    pretrain_network_t: str = Field(description="weights of the teacher")


class MetaPath(RunPath):
    """Paths of mln_meta, which starts from mln_bicubic."""

    pretrain_network_g: str = Field(description="weights of mln_bicubic")


class TestPath(Section):
    """Paths of a test."""

    results_root: str = Field("results", description="folder of the reports")
    pretrain_network_g: str | None = Field(None, description="weights of the student")
    pretrain_network_t: str | None = Field(None, description="weights of the teacher")
    pretrain_network_mln: str | None = Field(None, description="weights of mln_meta")


class Baseline(Section):
    """Another method on the same LR images: a network of ours or BasicSR's that maps LR to SR, and its weights."""

    network: SRNetwork = Field(description="As `network_g` in the option file that it was trained by.")
    path: str = Field(description="weights")
    param_key: Name = Field("params_ema", description="weights to prefer in the file; without them `params`, or bare")


class Distributed(Section):
    """Several processes."""

    timeout: Annotated[int, Ge(1), Le(10**6)] = Field(
        1800, description="seconds after which waiting for another process ends the run"
    )


class Options(Section):
    """What training and testing share."""

    name: Name = Field(description="of the run, and of its folder")
    model_type: str
    scale: Literal[2, 3, 4] = Field(description="upscaling factor")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    dist_params: Distributed = Field(default_factory=Distributed)

    @model_validator(mode="after")
    def _distinct_names(self) -> Options:
        names = [dataset.name for dataset in self.datasets.values()]
        if len(set(names)) < len(names):
            raise ValueError(f"datasets: two of them have the same name: {', '.join(names)}")
        return self


class TrainOptions(Options):
    """A training stage."""

    manual_seed: Annotated[int, Ge(0), Lt(2**63)] = Field(0, description="of every draw of the training")
    datasets: dict[
        Annotated[str, Field(pattern=r"^(train|val(_\w+)?)$")],
        Annotated[TrainSet | BenchmarkSet, Field(discriminator="type")],
    ] = Field(description="`train`, and validation sets `val`, `val_...`.")
    degradation: Degradation
    degradation_per: Literal["task", "image"] = Field("task", description="what has a draw of its own")
    network_g: Mln | MrdaNet | MrdaKernelNet
    path: RunPath = Field(default_factory=RunPath)
    train: Train
    val: Validation | None = Field(None, description="Needed where there is a validation set.")
    logger: Logger = Field(default_factory=Logger)

    @model_validator(mode="after")
    def _train_set(self) -> TrainOptions:
        train_set = self.datasets.get("train")
        if not isinstance(train_set, TrainSet):
            raise ValueError("datasets.train: missing, it takes a GTDataset")
        for phase, dataset in self.datasets.items():
            if phase != "train" and not isinstance(dataset, BenchmarkSet):
                raise ValueError(f"datasets.{phase}: it takes a BenchmarkDataset")
        if train_set.gt_size % self.scale:
            raise ValueError(f"datasets.train.gt_size: {train_set.gt_size} is no multiple of scale {self.scale}")
        kernel_size = getattr(self.degradation, "kernel_size", 1)
        if train_set.gt_size <= kernel_size // 2:
            raise ValueError(f"datasets.train.gt_size: {train_set.gt_size} is too small for kernel_size {kernel_size}")
        images = train_set.tasks_per_gpu * train_set.images_per_task * self.train.accumulation_steps
        if images * train_set.gt_size**2 > LARGEST_BATCH:
            raise ValueError(
                f"datasets.train: {images} images of gt_size {train_set.gt_size} in a step have more than "
                f"{LARGEST_BATCH:,d} pixels"
            )
        if len(self.datasets) > 1 and self.val is None:
            raise ValueError("val: missing, datasets has a validation set")
        return self


class MLNBicubicOptions(TrainOptions):
    """Stage mln_bicubic."""

    model_type: Literal["MLNBicubicModel"] = Field(description="chooses the stage")
    network_g: Mln
    train: NetworkTrain


class MLNMetaOptions(TrainOptions):
    """Stage mln_meta."""

    model_type: Literal["MLNMetaModel"] = Field(description="chooses the stage")
    network_g: Mln
    adaptation: Adaptation
    path: MetaPath
    train: MetaTrain

    @model_validator(mode="after")
    def _support(self) -> MLNMetaOptions:
        if self.adaptation.adapt_per != "task":
            raise ValueError("adaptation.adapt_per: 'image', but support and query images differ: use task")
        if self.degradation_per != "task":
            raise ValueError("degradation_per: 'image', but query images test what support images taught: use task")
        images = self.datasets["train"].images_per_task
        if self.train.meta.num_support >= images:
            raise ValueError(
                f"train.meta.num_support: {self.train.meta.num_support} leaves no query of {images} images"
            )
        return self


class TeacherOptions(TrainOptions):
    """Stage teacher."""

    model_type: Literal["MRDATeacherModel"] = Field(description="chooses the stage")
    network_g: MrdaNet
    adaptation: Adaptation
    network_mln: Mln = Field(description="Frozen; adapts to each task.")
    network_d: Discriminator | None = Field(None, description="Discriminator; makes the training adversarial.")
    path: RestoringPath
    train: AdversarialTrain

    @model_validator(mode="after")
    def _adversarial(self) -> TeacherOptions:
        parts = {"network_d": self.network_d, "train.gan_opt": self.train.gan_opt, "train.optim_d": self.train.optim_d}
        missing = [key for key, part in parts.items() if part is None]
        if missing and len(missing) < len(parts):
            raise ValueError(f"{', '.join(missing)}: missing, adversarial training needs all of {', '.join(parts)}")
        if missing and self.train.perceptual_opt:
            raise ValueError("train.perceptual_opt: it comes with adversarial training, network_d is missing")
        if not missing and self.train.model_dump().get("kd_opt", {}).get("warmup_iter"):
            raise ValueError("train.kd_opt.warmup_iter: not with network_d, which needs the student's images")
        return self

    @model_validator(mode="after")
    def _adapts_to_each_draw(self) -> TeacherOptions:
        if (self.degradation_per, self.adaptation.adapt_per) == ("image", "task"):
            raise ValueError("degradation_per: 'image', but MLN adapts to a task: set adaptation.adapt_per to image")
        return self


class StudentOptions(TeacherOptions):
    """Stage student."""

    model_type: Literal["MRDAStudentModel"] = Field(description="chooses the stage")
    network_t: MrdaNet = Field(description="Frozen teacher.")
    path: StudentPath
    train: StudentTrain


class BaselineOptions(TrainOptions):
    """Stage baseline, for comparison: no MLN, no teacher."""

    model_type: Literal["MRDABaselineModel"] = Field(description="chooses the stage")
    network_g: MrdaNet
    train: NetworkTrain


class KernelOptions(TrainOptions):
    """Stage kernel, for comparison: the network is told the blur kernel."""

    model_type: Literal["MRDAKernelModel"] = Field(description="chooses the stage")
    degradation: Isotropic | Anisotropic = Field(discriminator="type")
    network_g: MrdaKernelNet
    train: NetworkTrain

    @model_validator(mode="after")
    def _whole_kernel(self) -> KernelOptions:
        if self.network_g["kernel_size"] != self.degradation.kernel_size:
            raise ValueError(
                f"network_g.kernel_size: {self.network_g['kernel_size']}, but degradation.kernel_size is "
                f"{self.degradation.kernel_size}"
            )
        return self


class TestOptions(Options):
    """A test."""

    model_type: Literal["MRDATestModel"] = Field(description="chooses the test")
    datasets: dict[
        Annotated[str, Field(pattern=r"^test(_\w+)?$")],
        Annotated[BenchmarkSet | LQSet | PairedSet, Field(discriminator="type")],
    ] = Field(description="`test`, `test_...`; a set whose folder is not there is left out.")
    network_g: MrdaNet | None = Field(None, description="Student.")
    network_t: MrdaNet | None = Field(None, description="Teacher, an oracle.")
    network_mln: Mln | None = Field(None, description="Of the teacher.")
    adaptation: Adaptation | None = Field(None, description="Of the teacher.")
    baselines: dict[MethodName, Baseline] = Field({}, description="Methods beside ours, by the name in the report.")
    path: TestPath = Field(default_factory=TestPath)
    val: Metrics
    panels: Annotated[int, Ge(0), Le(1000)] = Field(4, description="picture panels a data set")

    @model_validator(mode="after")
    def _complete(self) -> TestOptions:
        if (self.network_g is None) != (self.path.pretrain_network_g is None):
            raise ValueError("network_g, path.pretrain_network_g: one of them is missing")
        parts = {
            "network_t": self.network_t,
            "network_mln": self.network_mln,
            "adaptation": self.adaptation,
            "path.pretrain_network_t": self.path.pretrain_network_t,
            "path.pretrain_network_mln": self.path.pretrain_network_mln,
        }
        missing = [key for key, part in parts.items() if part is None]
        if missing and len(missing) < len(parts):
            raise ValueError(f"{', '.join(missing)}: missing, the teacher's row needs all of {', '.join(parts)}")
        for name in ("Bicubic", "Student"):
            if name in self.baselines:
                raise ValueError(f"baselines.{name}: the report has a row of this name, choose another")
        return self


STAGES: dict[str, type[Options]] = {
    "MLNBicubicModel": MLNBicubicOptions,
    "MLNMetaModel": MLNMetaOptions,
    "MRDATeacherModel": TeacherOptions,
    "MRDAStudentModel": StudentOptions,
    "MRDABaselineModel": BaselineOptions,
    "MRDAKernelModel": KernelOptions,
}
