"""Sections of an option file that stages share: networks, validation, log, paths; and baselines of a test."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len
from pydantic import Field, model_validator

from mrda_metric import metric
from mrda_options.registered import registered
from mrda_utils.fields import Count, FilePath, Label, Name, Section, did_you_mean

Mln = registered("ARCH", ["MLN"])
MrdaNet = registered("ARCH", ["MRDANet"])
MrdaKernelNet = registered("ARCH", ["MRDAKernelNet"])
Discriminator = registered("ARCH", ["UNetDiscriminatorSN"])
_SR_NETWORKS = ("MRDANet", "MLN", "ECBSR", "EDSR", "MSRResNet", "RCAN", "RRDBNet", "SRVGGNetCompact", "SwinIR")
_TRAINING_ONLY = ("drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint")
_ALWAYS_DEFAULT = ("patch_size", "qk_scale", "norm_layer", "ape")  # of SwinIR; others do not take any image, or no YAML
SRNetwork = registered("ARCH", _SR_NETWORKS, skip=(*_TRAINING_ONLY, *_ALWAYS_DEFAULT))


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
