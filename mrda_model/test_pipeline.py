"""test.py: every method on every set whose images are there, and the report."""

from __future__ import annotations

import shutil
from pathlib import Path

from basicsr.data import build_dataset
from basicsr.models import build_model

from mrda_data.degradation.kernels import gaussian_kernel
from mrda_metric.lpips import alexnet_file
from mrda_model.evaluation import Restored, Row, evaluate, gather_rows, means, missing_weights
from mrda_utils import report
from mrda_utils.command_line import Run, parse
from mrda_utils.distributed import contact_lost_ends, gather, on_rank_0, stop
from mrda_utils.options import OptionError

ORACLE_NOTE = (
    "Teacher (oracle): its MLN adapts on the ground truth of the very image that it restores, so it is no method that "
    "could be used on a photograph."
)
MEAN_NOTE = "Means over images and kernels; PSNR in dB; Y is that of BT.601, 16-235. Metrics: "


def test_pipeline(root: Path, argv: list[str] | None = None) -> None:
    """Test the networks of an option file; prints the tables and writes the report.

    Args:
        root: folder of test.py.
        argv: command line; None for the process's own.

    Raises:
        UserError: a mistake in options, data or checkpoints.
    """
    run = parse(root, argv, is_train=False)
    try:
        with contact_lost_ends():
            _test(run)
    finally:
        stop()


def _test(run: Run) -> None:
    opt = run.opt
    folder = Path(opt["path"]["run"])
    datasets, missing = {}, []
    for dataset_opt in opt["datasets"].values():
        images = dataset_opt["dataroot_gt"]
        if images.startswith("bundled:") or Path(images).is_dir():
            datasets[dataset_opt["name"]] = dataset_opt
        else:
            missing.append(f"{dataset_opt['name']}: left out; put its HR images into {images}")
    if not datasets:
        raise OptionError("\n  ".join(["datasets: none of them is there:", *missing]))
    metrics = opt["val"]["metrics"]
    for name, reason in missing_weights(metrics).items():
        del metrics[name]
        missing.append(f"{name}: left out; {reason}")
    rank, world_size = run.process.rank, run.process.world_size
    if rank == 0:
        print(*missing, sep="\n", end="\n" if missing else "")  # noqa: T201
    datasets = {name: build_dataset(dataset_opt) for name, dataset_opt in datasets.items()}
    model = build_model(opt)
    # pictures of an earlier test of this name
    on_rank_0(lambda: shutil.rmtree(folder / "panels", ignore_errors=True))
    rows, panels = [], []
    for name, dataset in datasets.items():
        shown = {round((i + 0.5) * len(dataset) / opt["panels"] - 0.5) for i in range(opt["panels"])}
        own, own_panels = [], []
        for restored in evaluate(model.restorers, dataset, metrics, model.device, rank, world_size):
            own.append((restored.index, restored.rows))
            if restored.index in shown:
                path = _save_panel(restored, dataset.opt, folder / "panels" / name)
                own_panels.append((restored.index, path))
        rows += gather_rows(own)
        panels += [path for _, path in sorted(entry for part in gather(own_panels) for entry in part)]
    if rank == 0:
        _write(run, rows, panels, {name: dataset.opt for name, dataset in datasets.items()}, missing)


def _save_panel(restored: Restored, opt: dict, folder: Path, side: int = 160) -> Path:
    """Central crop of LR, every method and the ground truth, with the kernel."""
    item, scale = restored.item, opt["scale"]
    height, width = (min(side, length) for length in restored.gt.shape[:2])
    top, left = (
        (length - part) // 2 // scale * scale
        for length, part in zip(restored.gt.shape[:2], (height, width), strict=True)
    )

    def crop(image, factor=1):
        return image[top // factor : (top + height) // factor, left // factor : (left + width) // factor]

    values = {row.method: row.value for row in restored.rows if row.metric == "psnr"}
    titled = {f"{m} {values[m]:.2f} dB" if m in values else m: crop(image) for m, image in restored.sr.items()}
    task = item["task"]
    sigma_x, sigma_y = (task[key] or 1e-3 for key in ("sigma_x", "sigma_y"))
    kernel = gaussian_kernel(sigma_x, sigma_y, task["theta"], opt["kernel_size"]).numpy()
    picture = report.panel({"LR": crop(restored.lq, scale), **titled, "GT": crop(restored.gt)}, kernel)
    path = folder / f"{Path(item['lq_path']).with_suffix('').as_posix().replace('/', '_')}_{item['kernel']}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def _write(run: Run, rows: list[Row], panels: list[Path], datasets: dict[str, dict], missing: list[str]) -> None:
    opt, folder = run.opt, Path(run.opt["path"]["run"])
    folder.mkdir(parents=True, exist_ok=True)
    measured = means(rows)
    weights = {key: path for key, path in opt["path"].items() if key.startswith("pretrain_network")}
    metrics = opt["val"]["metrics"]
    for name, kind in metrics.items():
        if kind["type"] == "calculate_lpips":
            weights[f"val.metrics.{name}.weights"] = str(alexnet_file(kind.get("weights")))
    notes = [
        MEAN_NOTE + "; ".join(f"{name} {kind}" for name, kind in metrics.items()),
        *([ORACLE_NOTE] if "network_t" in opt else []),
        *missing,
    ]
    report.write_csv(rows, Row._fields, folder / "metrics.csv")
    report.write_json(measured, opt["name"], run.options_sha256, weights, folder / "metrics.json")
    report.write_markdown(
        report.tables(measured, datasets, metrics, opt["scale"], "github"), notes, panels, folder / "report.md"
    )
    (folder / f"{opt['name']}.yml").write_text(run.option_text, encoding="utf-8")
    print(f"\n{report.tables(measured, datasets, metrics, opt['scale'], 'simple')}\n")  # noqa: T201
    print(f"report:   {folder / 'report.md'}\npictures: {folder / 'panels'}")  # noqa: T201
