"""The section `train` of an option file, by stage, and `adaptation`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from basicsr.archs import vgg_arch
from pydantic import AfterValidator, Field, model_validator

from mrda_options.registered import registered
from mrda_utils.fields import Count, FilePath, Section


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


def _ascending(values: list[int]) -> list[int]:
    if values != sorted(values):
        raise ValueError(f"{values} must ascend")
    return values


class MultiStepLR(Section):
    """Learning rate times gamma after each milestone."""

    type: Literal["MultiStepLR"] = Field(description="course of the learning rate")
    milestones: Annotated[list[Count], AfterValidator(_ascending)] = Field([], description="iterations")
    gamma: Annotated[float, Gt(0)] = Field(0.5, description="factor at each milestone")

    @model_validator(mode="after")
    def _within_reach(self) -> MultiStepLR:
        if len(self.milestones) * abs(math.log10(self.gamma)) > 100:
            raise ValueError(f"gamma: {self.gamma} at {len(self.milestones)} milestones leads beyond all numbers")
        return self


class CosineAnnealingLR(Section):
    """Learning rate along half a cosine, from `lr` to `eta_min`, where it is after `total_iter`."""

    type: Literal["CosineAnnealingLR"] = Field(description="course of the learning rate")
    eta_min: Annotated[float, Ge(0)] = Field(1e-7, description="learning rate at the end")


class CosineAnnealingRestartLR(Section):
    """Half a cosine after the other, each from its share of `lr` to `eta_min`."""

    type: Literal["CosineAnnealingRestartLR"] = Field(description="course of the learning rate")
    periods: Annotated[list[Count], Len(1)] = Field(
        description="iterations of each cosine; one more trains on, with --resume_changed"
    )
    restart_weights: list[Annotated[float, Gt(0)]] = Field([1], description="share of lr that each period starts from")
    eta_min: Annotated[float, Ge(0)] = Field(1e-7, description="learning rate at the end of each period")

    @model_validator(mode="after")
    def _a_weight_each(self) -> CosineAnnealingRestartLR:
        if len(self.restart_weights) != len(self.periods):
            raise ValueError(f"restart_weights: {self.restart_weights}, needs one for each of periods {self.periods}")
        return self


Scheduler = Annotated[MultiStepLR | CosineAnnealingLR | CosineAnnealingRestartLR, Field(discriminator="type")]


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
    every: Count = Field(
        1, description="distil in each n-th iteration only, of those after the warm-up; cheaper: MLN adapts in no other"
    )


PixelLoss = registered("LOSS", ["L1Loss", "MSELoss", "CharbonnierLoss"])


class Train(Section):
    """What all stages share."""

    total_iter: Annotated[int, Ge(1), Le(10**9)] = Field(description="optimizer steps")
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

    @model_validator(mode="after")
    def _a_period_for_each_iteration(self) -> Train:
        if isinstance(self.scheduler, CosineAnnealingRestartLR) and sum(self.scheduler.periods) < self.total_iter:
            raise ValueError(f"scheduler.periods: {self.scheduler.periods} end before total_iter: {self.total_iter}")
        return self


class NetworkTrain(Train):
    """Stages that train `network_g` by a backward pass through it (mln_meta computes in `adaptation.dtype`)."""

    amp: Literal["none", "bf16"] = Field("none", description="network under autocast; losses stay in float32")
    channels_last: bool = Field(False, description="memory format of network_g and its input")
    compile: bool = Field(False, description="torch.compile network_g; needs a C++ compiler on the CPU")


class Perceptual(Section):
    """Distance of VGG's features (paper Eq. 3), BasicSR's PerceptualLoss."""

    type: Literal["PerceptualLoss"] = Field(description="which loss")
    layer_weights: dict[Annotated[str, Field(pattern=r"^(conv|relu)[1-5]_[1-4]$")], Annotated[float, Gt(0)]] = Field(
        {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0},
        description="weight of each layer's features; conv: before its activation",
    )
    vgg_type: Literal["vgg16", "vgg19"] = Field("vgg19", description="network of the features")
    vgg_weights: FilePath | None = Field(None, description="its ImageNet weights; torch's cache by default")
    use_input_norm: bool = Field(True, description="normalise by ImageNet's mean and deviation")
    range_norm: bool = Field(False, description="images are in [-1, 1]")
    perceptual_weight: Annotated[float, Ge(0)] = Field(1.0, description="weight of the features' distance")
    style_weight: Annotated[float, Ge(0)] = Field(0.0, description="weight of the Gram matrices' distance")
    criterion: Literal["l1", "fro"] = Field("l1", description="distance")

    @model_validator(mode="after")
    def _layers(self) -> Perceptual:
        unknown = self.layer_weights.keys() - set(vgg_arch.NAMES[self.vgg_type])
        if unknown:
            raise ValueError(f"layer_weights: {self.vgg_type} has no {', '.join(sorted(unknown))}")
        return self


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
    idr_per: Literal["image", "task"] = Field(
        "image", description="task: one representation serves all images of a task; not in the paper, helps on tiles"
    )
