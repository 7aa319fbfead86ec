"""Whole option files: one class a stage, and one for tests."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt
from pydantic import Field, field_validator, model_validator

from mrda_options.datasets import BenchmarkSet, LQSet, PairedSet, TrainSet
from mrda_options.registered import degradation
from mrda_options.sections import (
    Baseline,
    Discriminator,
    Distributed,
    Logger,
    MetaPath,
    Metrics,
    Mln,
    MrdaKernelNet,
    MrdaNet,
    RestoringPath,
    RunPath,
    StudentPath,
    TestPath,
    Validation,
)
from mrda_options.training import Adaptation, AdversarialTrain, MetaTrain, NetworkTrain, StudentTrain, Train
from mrda_utils.fields import Count, MethodName, Name, Section

LARGEST_BATCH = 2**28  # pixels that a process crops for an optimizer step, 3 GiB; the paper's has 2**21


def _all_or_none(parts: dict[str, object], what: str) -> list[str]:
    """Keys that are missing, all or none; `what` needs them all."""
    missing = [key for key, part in parts.items() if part is None]
    if missing and len(missing) < len(parts):
        raise ValueError(f"{', '.join(missing)}: missing, {what} needs all of {', '.join(parts)}")
    return missing


class Options(Section):
    """What training and testing share."""

    name: Name = Field(description="of the run, and of its folder")
    model_type: str
    scale: Literal[2, 3, 4] = Field(description="upscaling factor")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d)?)$")] = Field(
        "auto", description="auto, cpu, cuda, or one GPU by its number, cuda:1; auto: cuda where there is one"
    )
    tf32: bool = Field(True, description="CUDA: convolutions of float32 in TF32; false: all in full float32")
    deterministic: bool = Field(False, description="CUDA: the same bits each time; slower, no cudnn_benchmark then")
    cudnn_benchmark: bool = Field(True, description="CUDA: cuDNN tries algorithms for each new size, takes the fastest")
    dist_params: Distributed = Field(default_factory=Distributed)

    @model_validator(mode="after")
    def _distinct_names(self) -> Options:
        names = [dataset.name for dataset in self.datasets.values()]
        if len(set(names)) < len(names):
            raise ValueError(f"datasets: two of them have the same name: {', '.join(names)}")
        return self


class TrainOptions(Options):
    """A training stage."""

    num_processes: Literal["auto"] | Count = Field(
        1,
        description="processes that share the CPU cores and the tasks_per_gpu of a step; auto: as many as both allow, "
        "1 on CUDA; not used under torchrun or Slurm",
    )
    manual_seed: Annotated[int, Ge(0), Lt(2**63)] = Field(0, description="of every draw of the training")
    datasets: dict[
        Annotated[str, Field(pattern=r"^(train|val(_\w+)?)$")],
        Annotated[TrainSet | BenchmarkSet | PairedSet, Field(discriminator="type")],
    ] = Field(description="`train`, and validation sets `val`, `val_...`.")
    degradation: degradation()
    degradation_per: Literal["task", "image"] = Field("task", description="what has a draw of its own")
    network_g: Mln | MrdaNet | MrdaKernelNet
    path: RunPath = Field(default_factory=RunPath)
    train: Train
    val: Validation | None = Field(None, description="Needed where there is a validation set.")
    logger: Logger = Field(default_factory=Logger)

    @field_validator("device", mode="before")
    @classmethod
    def _not_mps(cls, device: object) -> object:
        if device == "mps":
            raise ValueError(
                "'mps': it upscales but does not train: torch's fused Adam for it would take steps whose gradients are "
                "not finite; use cpu"
            )
        return device

    @model_validator(mode="after")
    def _train_set(self) -> TrainOptions:
        train_set = self.datasets.get("train")
        if not isinstance(train_set, TrainSet):
            raise ValueError("datasets.train: missing, it takes a GTDataset")
        for phase, dataset in self.datasets.items():
            if phase != "train" and isinstance(dataset, TrainSet):
                raise ValueError(f"datasets.{phase}: it takes a BenchmarkDataset or PairedDataset")
        if train_set.gt_size % self.scale:
            raise ValueError(f"datasets.train.gt_size: {train_set.gt_size} is no multiple of scale {self.scale}")
        kernel_size = getattr(self.degradation, "kernel_size", 1)
        if train_set.gt_size <= kernel_size // 2:
            raise ValueError(f"datasets.train.gt_size: {train_set.gt_size} is too small for kernel_size {kernel_size}")
        images = train_set.tasks_per_gpu * train_set.images_per_task * self.train.accumulation_steps
        size = train_set.degrade_size or train_set.gt_size
        if size < train_set.gt_size or (size - train_set.gt_size) % (2 * self.scale):
            raise ValueError(
                f"datasets.train.degrade_size: {size}, but it is gt_size {train_set.gt_size} plus a multiple of "
                f"{2 * self.scale}, twice the scale"
            )
        if images * size**2 > LARGEST_BATCH:
            raise ValueError(
                f"datasets.train: {images} images of side {size} in a step have more than {LARGEST_BATCH:,d} pixels"
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
        missing = _all_or_none(parts, "adversarial training")
        train = self.train
        for name in ("perceptual_opt", "gan_gt_usm", "percep_gt_usm", "net_d_iters", "net_d_init_iters"):
            if missing and getattr(train, name) != type(train).model_fields[name].default:
                raise ValueError(f"train.{name}: it comes with adversarial training, network_d is missing")
        if missing and self.path.pretrain_network_d:
            raise ValueError("path.pretrain_network_d: it comes with adversarial training, network_d is missing")
        if train.percep_gt_usm and not train.perceptual_opt:
            raise ValueError("train.percep_gt_usm: true, but there is no perceptual loss, train.perceptual_opt")
        if train.total_iter // train.net_d_iters * train.net_d_iters <= train.net_d_init_iters:
            raise ValueError("train.total_iter: ends before the first step of the generator, see net_d_init_iters")
        if not missing and train.model_dump().get("kd_opt", {}).get("warmup_iter"):
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

    @model_validator(mode="after")
    def _alike(self) -> StudentOptions:
        if self.train.idr_per == "task" and self.degradation_per == "image":
            raise ValueError(
                "train.idr_per: 'task', but not all its images are degraded alike: set degradation_per to task"
            )
        return self


class BaselineOptions(TrainOptions):
    """Stage baseline, for comparison: no MLN, no teacher."""

    model_type: Literal["MRDABaselineModel"] = Field(description="chooses the stage")
    network_g: MrdaNet
    train: NetworkTrain


class KernelOptions(TrainOptions):
    """Stage kernel, for comparison: the network is told the blur kernel."""

    model_type: Literal["MRDAKernelModel"] = Field(description="chooses the stage")
    degradation: degradation("isotropic", "anisotropic")
    network_g: MrdaKernelNet
    train: NetworkTrain

    @model_validator(mode="after")
    def _known_kernels(self) -> KernelOptions:
        for phase, dataset in self.datasets.items():
            if isinstance(dataset, PairedSet):
                raise ValueError(f"datasets.{phase}: this stage needs the kernels, which a PairedDataset has not")
        return self

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
    tf32: bool = Field(False, description="CUDA: convolutions of float32 in TF32; false: all in full float32")
    cudnn_benchmark: bool = Field(False, description="CUDA: as in training; images of a test differ in size")
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
        _all_or_none(parts, "the teacher's row")
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
