"""BasicSR's flags, and from them the complete, checked options of a run."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from hashlib import sha256
from os.path import expanduser
from pathlib import Path
from typing import NamedTuple

import yaml

from mrda_loss.vgg import vgg_path
from mrda_options import read_options
from mrda_options.process import Process, start
from mrda_utils.arguments import argument_parser
from mrda_utils.distributed import environment_number
from mrda_utils.errors import OptionError, UserError
from mrda_utils.numerics import set_numerics
from mrda_utils.shipped import PREFIX, shipped_weights


class Run(NamedTuple):
    """What an entry script works with."""

    opt: dict
    options_sha256: str
    """Of the options as given, before this machine's paths and devices came in."""
    process: Process
    auto_resume: bool
    option_text: str
    """The option file as read, under a header with date and command."""
    resume_changed: bool = False
    """Go on although the state is of another seed or degradation."""
    save_lr: Path | None = None
    """Where a test also writes its LR images."""


def _parse(argv: list[str] | None, is_train: bool) -> argparse.Namespace:
    parser = argument_parser("Train one stage." if is_train else "Test on benchmark protocols.")
    parser.add_argument("-opt", required=True, help="option file (YAML)")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        default="none",
        help="slurm: read its variables; torchrun needs no flag",
    )
    if is_train:
        parser.add_argument("--auto_resume", action="store_true", help="go on from the newest usable state of this run")
        parser.add_argument(
            "--resume_changed", action="store_true", help="go on from a state of another seed or degradation, too"
        )
    else:
        parser.add_argument(
            "--save_lr", type=Path, metavar="FOLDER", help="also write the LR images, a folder a BenchmarkDataset"
        )
    parser.add_argument("--debug", action="store_true", help="prefix the name by debug_, log every iteration")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # LOCAL_RANK is what counts
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change options, for example train:total_iter=10",
    )
    parser.set_defaults(auto_resume=False, resume_changed=False, save_lr=None)
    return parser.parse_args(argv)


def parse(root: Path, argv: list[str] | None, is_train: bool) -> Run:
    """Read flags and option file, join the processes, complete the options with what BasicSR's parts expect.

    Args:
        root: folder of the entry script; relative paths in the option file, and --save_lr, start here.
        argv: arguments without the program's name; None for the command line's.
        is_train: train.py or test.py.

    Raises:
        UserError: any mistake in flags, options or paths, before anything is written.
    """
    args = _parse(argv, is_train)
    opt, text = read_options(args.opt, is_train, args.force_yml)
    digest = sha256(json.dumps(opt, sort_keys=True).encode()).hexdigest()
    if args.debug:
        _debug(opt)
    _resolve_paths(opt, root)
    _check_consistency(opt)
    _check_files(opt, root, is_train)
    if "perceptual_opt" in opt.get("train", {}):
        vgg_path(opt["train"]["perceptual_opt"], args.debug)
    set_numerics(**{key: opt[key] for key in ("tf32", "deterministic", "cudnn_benchmark")})
    process = start(args.launcher, opt["device"], opt["dist_params"]["timeout"])
    opt.update(
        is_train=is_train,
        dist=process.world_size > 1,
        rank=process.rank,
        world_size=process.world_size,
        num_gpu=int(process.device.type == "cuda"),
    )
    for phase, dataset in opt["datasets"].items():
        dataset.update(phase=phase.split("_")[0], scale=opt["scale"])
        if phase == "train":
            dataset["manual_seed"] = opt["manual_seed"]
    restarted = environment_number("TORCHELASTIC_RESTART_COUNT", 0) > 0  # by torchrun --max_restarts
    command = " ".join(sys.argv if argv is None else argv)
    header = f"# {time.strftime('%Y-%m-%d %H:%M:%S')}\n# {command}\n\n"
    save_lr = root / expanduser(args.save_lr) if args.save_lr else None
    return Run(opt, digest, process, args.auto_resume or restarted, header + text, args.resume_changed, save_lr)


def _debug(opt: dict) -> None:
    opt["name"] = f"debug_{opt['name']}"
    if "val" in opt and "val_freq" in opt["val"]:
        opt["val"]["val_freq"] = 8
    if "logger" in opt:
        opt["logger"].update(print_freq=1, save_checkpoint_freq=8)


def _weights_file(key: str, value: str, root: Path) -> str:
    """A file or folder as the option `key` names it, absolute."""
    try:
        return str(shipped_weights(value) if value.startswith(PREFIX) else root / expanduser(value))
    except UserError as error:
        raise OptionError(f"{key}: {error}") from error


def _data_root(folder: str, root: Path) -> str:
    return folder if folder.startswith("bundled:") else str(root / expanduser(folder))


def _resolve_paths(opt: dict, root: Path) -> None:
    """Make paths absolute, and add the folders of this run; what is fine-tuned is what the training starts from."""
    for key, value in opt["path"].items():
        opt["path"][key] = _weights_file(f"path.{key}", value, root)
    if "finetune_network_g" in opt["path"]:
        opt["path"]["pretrain_network_g"] = opt["path"]["finetune_network_g"]
    for name, baseline in opt.get("baselines", {}).items():
        if "sr" in baseline:
            baseline["sr"] = str(root / expanduser(baseline["sr"]))
        else:
            baseline["path"] = _weights_file(f"baselines.{name}.path", baseline["path"], root)
    for metric in opt.get("val", {}).get("metrics", {}).values():
        if "weights" in metric:
            metric["weights"] = str(root / expanduser(metric["weights"]))
    for dataset in opt["datasets"].values():
        for key in ("dataroot_gt", "dataroot_lq", "cache_folder"):
            if isinstance(dataset.get(key), list):
                dataset[key] = [_data_root(folder, root) for folder in dataset[key]]
            elif key in dataset:
                dataset[key] = _data_root(dataset[key], root)
    run = Path(opt["path"]["experiments_root" if "experiments_root" in opt["path"] else "results_root"]) / opt["name"]
    opt["path"].update(run=str(run), models=str(run / "models"), training_states=str(run / "training_states"))


def _networks(opt: dict) -> dict[str, dict]:
    """The baselines that have a network."""
    return {name: baseline for name, baseline in opt.get("baselines", {}).items() if "network" in baseline}


def _check_consistency(opt: dict) -> None:
    """Options of several sections that must agree."""
    for section in ("network_g", "network_mln", "network_t"):
        upscale = opt.get(section, {}).get("upscale", opt["scale"])
        if upscale != opt["scale"]:
            raise OptionError(f"{section}.upscale: {upscale}, but scale is {opt['scale']}")
    for name, baseline in _networks(opt).items():
        key = "upscale" if "upscale" in baseline["network"] else "scale"
        if baseline["network"][key] != opt["scale"]:
            raise OptionError(
                f"baselines.{name}.network.{key}: {baseline['network'][key]}, but scale is {opt['scale']}"
            )
    if "network_mln" in opt:
        teacher = "network_t" if "network_t" in opt else "network_g"
        den_in_ch, num_feat = opt[teacher].get("den_in_ch"), opt["network_mln"].get("num_feat")
        if den_in_ch != num_feat:
            raise OptionError(f"{teacher}.den_in_ch: {den_in_ch}, but it reads MLN's num_feat {num_feat} channels")
    if opt["model_type"] == "MRDAStudentModel":
        student, teacher = opt["network_g"], opt["network_t"]
        if student["den_in_ch"] != student["num_in_ch"]:
            raise OptionError(f"network_g.den_in_ch: {student['den_in_ch']}, but it reads the LR image")
        for key in student.keys() - {"den_in_ch"}:
            if student[key] != teacher[key]:
                raise OptionError(f"network_g.{key}: {student[key]}, but network_t, its teacher, has {teacher[key]}")


def _check_files(opt: dict, root: Path, is_train: bool) -> None:
    """Weights to start from must be there; so must the training images."""
    files = ("pretrain_network", "finetune_network", "resume_state")
    for key, value in opt["path"].items():
        if key.startswith(files) and not Path(value).is_file():
            raise OptionError(f"path.{key}: {value} does not exist{_advice(Path(value), root)}")
    for name, baseline in _networks(opt).items():
        if not Path(baseline["path"]).is_file():
            advice = _advice(Path(baseline["path"]), root) or "; put its weights there, or leave this baseline out"
            raise OptionError(f"baselines.{name}.path: {baseline['path']} does not exist{advice}")
    if not is_train:
        return
    for phase, dataset in opt["datasets"].items():
        folders = dataset["dataroot_gt"]
        for folder in folders if isinstance(folders, list) else [folders]:
            if folder.startswith("bundled:") or Path(folder).is_dir():
                continue
            bundled = "bundled:train" if phase == "train" else "bundled:test"
            advice = "scripts/prepare_data.py --lmdb makes it" if folder.endswith(".lmdb") else "put HR images there"
            raise OptionError(
                f"datasets.{phase}.dataroot_gt: {folder} does not exist; {advice} (docs/data.md says how), or try "
                f"--force_yml datasets:{phase}:dataroot_gt={bundled}"
            )


def _advice(weights: Path, root: Path) -> str:
    """The command that makes `experiments/<name>/models/*.pth`, if one of our option files has this name."""
    name = weights.parent.parent.name
    for path in sorted((root / "options").rglob("*.yml")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"^name: {re.escape(name)}\s*(#.*)?$", text, re.MULTILINE):
            return f"; run 'python train.py -opt {path.relative_to(root)}' first"
    return ""


def dump(opt: dict) -> str:
    """Options as YAML, for the log."""
    return yaml.safe_dump(opt, sort_keys=False)
