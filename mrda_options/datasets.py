"""Data sets of an option file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len
from pydantic import AfterValidator, Field, TypeAdapter, WrapValidator

from mrda_data.degradation.ranges import FactorRange, KernelSize
from mrda_utils.fields import Count, FilePath, Label, Name, Section, did_you_mean


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
