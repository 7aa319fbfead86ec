"""The four stages at the smallest size, on the bundled photographs, as the pipeline sees them."""

from __future__ import annotations

from pathlib import Path

import yaml

from mrda_utils.yaml_text import parse_yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("mln_bicubic", "mln_meta", "teacher", "student")
# with global_residual a network that is hardly trained gives an image, not a flat area, of which NIQE has no value
SIZE = {"num_feat": 4, "num_block": 1, "den_feat": 2, "global_residual": True}


def shrunk(path: Path) -> dict:
    """An option file at the smallest size, on the CPU, a stage's on the bundled photographs."""
    opt = parse_yaml(path.read_text(), str(path))
    opt["device"] = "cpu"
    for section in ("network_g", "network_t", "network_mln", "network_d"):
        if section in opt:
            opt[section].update(
                {k: v for k, v in SIZE.items() if opt[section]["type"].startswith("MRDA") or k == "num_feat"}
            )
            if opt[section].get("den_in_ch", 3) != 3:
                opt[section]["den_in_ch"] = SIZE["num_feat"]
    if "train" in opt:
        small = {"gt_size": 48, "tasks_per_gpu": 2, "images_per_task": 2, "num_worker_per_gpu": 0}
        opt["datasets"]["train"].update(dataroot_gt="bundled:train", **small)
        if "meta" in opt["train"]:
            opt["train"]["meta"]["num_support"] = 1
    return opt


def stage_options(stage: str, experiments: Path, **changes) -> dict:
    """The demo's option file of a stage, shrunk; `changes` are written section__key=value."""
    opt = shrunk(ROOT / f"options/demo/train_{stage}_x4.yml")
    opt["datasets"] = {"train": opt["datasets"]["train"]}
    del opt["val"]
    opt["train"].update(total_iter=6, scheduler={"type": "MultiStepLR", "milestones": [4]})
    opt["logger"] = {"print_freq": 2, "save_checkpoint_freq": 3, "use_tb_logger": False}
    opt["path"] = {k: v.replace("experiments/", f"{experiments}/") for k, v in opt.get("path", {}).items()}
    opt["path"]["experiments_root"] = str(experiments)
    for key, value in changes.items():
        *sections, last = key.split("__")
        target = opt
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return opt


def train(opt: dict, *flags: str) -> Path:
    """Run train_pipeline on these options in this process; return the run's folder."""
    import mrda_loss  # noqa: F401
    import mrda_model  # noqa: F401
    from mrda_pipeline.train_pipeline import train_pipeline

    folder = Path(opt["path"]["experiments_root"])
    folder.mkdir(parents=True, exist_ok=True)
    option_file = folder / f"options_{opt['name']}.yml"
    option_file.write_text(yaml.safe_dump(opt))
    train_pipeline(ROOT, ["-opt", str(option_file), *flags])
    return folder / opt["name"]
