"""The sections of an option file that stages share: networks, data sets, training, validation, log, paths."""

from __future__ import annotations

import importlib.util
import math
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from basicsr.archs import vgg_arch
from pydantic import AfterValidator, Field, TypeAdapter, WrapValidator, model_validator

from mrda_metric import metric
from mrda_options.registered import registered
from mrda_utils.fields import Count, FactorRange, FilePath, KernelSize, Label, Name, Section, did_you_mean

Mln = registered("ARCH", ["MLN"])
MrdaNet = registered("ARCH", ["MRDANet"])
MrdaKernelNet = registered("ARCH", ["MRDAKernelNet"])
Discriminator = registered("ARCH", ["UNetDiscriminatorSN"])
_SR_NETWORKS = ("MRDANet", "MLN", "ECBSR", "EDSR", "MSRResNet", "RCAN", "RRDBNet", "SRVGGNetCompact", "SwinIR")
_TRAINING_ONLY = ("drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint")
_ALWAYS_DEFAULT = ("patch_size", "qk_scale", "norm_layer", "ape")  # of SwinIR; others do not take any image, or no YAML
SRNetwork = registered("ARCH", _SR_NETWORKS, skip=(*_TRAINING_ONLY, *_ALWAYS_DEFAULT))


def _bundled(root: str) -> str:
    if root.startswith("bundled:") and root not in ("bundled:train", "bundled:test"):
        raise ValueError(f"{root!r}, {did_you_mean(root, ['bundled:train', 'bundled:test'])}")
    return root


DataRoot = Annotated[FilePath, AfterValidator(_bundled)]
_ONE, _SEVERAL = TypeAdapter(DataRoot), TypeAdapter(Annotated[list[DataRoot], Len(1)])


def _roots(value: Any) -> Any:
    """Check one folder or a list of them; with a union the messages would name both forms."""
    if not isinstance(value, list):
        return _ONE.validate_python(value)
    if len(set(map(str, value))) < len(value):
        raise ValueError(f"{', '.join(map(str, value))}: one is listed twice")
    return _SEVERAL.validate_python(value)


DataRoots = Annotated[DataRoot | list[DataRoot], WrapValidator(lambda value, _: _roots(value))]


class TrainSet(Section):
    """Random crops of ground-truth images."""

    name: Label = Field(description="for the log")
    type: Literal["GTDataset"] = Field(description="kind of data set")
    dataroot_gt: DataRoots = Field(
        description="folder of HR images (sub-folders included), .lmdb, or bundled:train; or a list of these"
    )
    gt_size: Count = Field(description="side of the HR crop, pixels, a multiple of scale")
    degrade_size: Count | None = Field(
        None,
        description="degrade larger crops of this side and keep their centre: no blur sees a reflected border then",
    )
    use_hflip: bool = Field(True, description="flip horizontally and vertically, each with probability 1/2")
    use_rot: bool = Field(True, description="rotate by 90 degrees with probability 1/2")
    contrast: FactorRange | None = Field(
        None, description="each crop's contrast is multiplied by a factor from this range, log-uniform"
    )
    skip_corrupt: bool = Field(False, description="leave out damaged or too small images with a warning, not an error")
    cache: Literal["none", "ram", "mmap"] = Field(
        "none", description="keep decoded images: in memory, or in a file that is mapped; see docs/data.md"
    )
    cache_folder: FilePath | None = Field(
        None, description="of mmap's file, three bytes a pixel; ~/.cache/mrda by default"
    )
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
    dataroot_lq: FilePath | None = Field(
        None, description="LR set of test.py --save_lr, or its .lmdb, to read instead of degrading"
    )
    protocol: Literal["bicubic", "gaussian8", "width", "aniso9_dasr", "aniso9_mrda", "photo", "realesrgan"] = Field(
        description="list of kernels, noise levels or photographs, see mrda_data/protocols.yml; or Real-ESRGAN's draws"
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
    """Real LR images with their ground truth, in pairs by their names."""

    name: Name = Field(description="for log, tables and folders")
    type: Literal["PairedDataset"] = Field(description="kind of data set")
    dataroot_gt: DataRoot = Field(description="folder of HR images, or .lmdb")
    dataroot_lq: DataRoot = Field(description="folder of LR images, or .lmdb")
    lq_template: Annotated[str, Field(pattern=r"^[^{}/]*\{name\}[^{}/]*$")] | None = Field(
        None, description="name of the LR image of `{name}`, such as `{name}x4`; by default the pattern that all share"
    )
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


def _metric(**fields: Any) -> Any:
    return registered("METRIC", metric.KINDS, skip=("img", "img2", "input_order"), **fields)


class Metrics(Section):
    """What a test measures: metric name to metric options."""

    metrics: dict[Name, _metric()] = Field(description="Metrics of BasicSR and LPIPS, by a name of your choice.")
    panel_crop: dict[str, Annotated[list[Annotated[int, Ge(0)]], Len(3, 3)]] = Field(
        {},
        description="image without suffix to [left, top, side], HR pixels: what its panels enlarge, others have none",
    )
    save_img: bool = Field(False, description="write every SR image, to `visualization/` beside the report")


Better = Annotated[
    Literal["higher", "lower"] | None, Field(description="not needed, each metric knows it; another value is refused")
]


class Validation(Section):
    """Validation during training."""

    metrics: dict[Name, _metric(better=(Better, None))] = Field(
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

    project: Label = Field(description="project on the server")
    resume_id: Label | None = Field(None, description="id of the wandb run to go on with")


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

    experiments_root: FilePath = Field("experiments", description="folder of the training runs")
    resume_state: FilePath | None = Field(None, description="state file to go on from")
    pretrain_network_g: FilePath | None = Field(None, description="weights to start from: a file, or shipped:NAME")


class AdaptingPath(RunPath):
    """Paths of a stage that adapts MLN."""

    pretrain_network_mln: FilePath = Field(description="weights of mln_meta")


class RestoringPath(AdaptingPath):
    """Paths of teacher and student."""

    pretrain_network_d: FilePath | None = Field(None, description="discriminator to start from")
    finetune_network_g: FilePath | None = Field(
        None,
        description="weights to start from that another degradation was trained on, as network_mln and network_t may "
        "be then, too; see docs/finetuning.md",
    )

    @model_validator(mode="after")
    def _one_start(self) -> RestoringPath:
        if self.finetune_network_g is not None and self.pretrain_network_g is not None:
            raise ValueError("finetune_network_g, pretrain_network_g: leave one of them out")
        return self


class StudentPath(RestoringPath):
    """Paths of the student."""

    pretrain_network_t: FilePath = Field(description="weights of the teacher")


class MetaPath(RunPath):
    """Paths of mln_meta, which starts from mln_bicubic."""

    pretrain_network_g: FilePath = Field(description="weights of mln_bicubic, or of an earlier mln_meta")


class TestPath(Section):
    """Paths of a test."""

    results_root: FilePath = Field("results", description="folder of the reports")
    pretrain_network_g: FilePath | None = Field(None, description="weights of the student")
    pretrain_network_t: FilePath | None = Field(None, description="weights of the teacher")
    pretrain_network_mln: FilePath | None = Field(None, description="weights of mln_meta")


class Baseline(Section):
    """Another method on the same LR images: a network of ours or BasicSR's and its weights, or another program."""

    network: SRNetwork | None = Field(None, description="As `network_g` in the option file that it was trained by.")
    path: FilePath | None = Field(None, description="weights of the network")
    param_key: Name | None = Field(
        None, description="weights to prefer in the file, params_ema by default; without them `params`, or bare"
    )
    sr: FilePath | None = Field(
        None, description="in the place of a network: folder of SR images that a program made of test.py --save_lr's"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Baseline:
        given = {key for key in ("network", "path", "param_key", "sr") if getattr(self, key) is not None}
        if given - {"param_key"} not in ({"network", "path"}, {"sr"}) or given == {"sr", "param_key"}:
            raise ValueError(
                f"{', '.join(sorted(given)) or 'nothing'} is given; it takes network and path, or sr alone"
            )
        return self


class Distributed(Section):
    """Several processes."""

    timeout: Annotated[int, Ge(1), Le(10**6)] = Field(
        1800, description="seconds after which waiting for another process ends the run"
    )
