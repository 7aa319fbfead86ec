"""Draw the paper's Fig. 7 to 10 for the networks of a test's option file; PNG, PDF and CSV.

    python scripts/figures.py idr -opt options/demo/test_gaussian8_x4.yml --baseline experiments/.../net_g_latest.pth
    python scripts/figures.py rdam -opt options/demo/test_gaussian8_x4.yml
    python scripts/figures.py adaptation -opt options/demo/test_gaussian8_x4.yml --mln bicubic=experiments/...pth
    python scripts/figures.py steps --values results/ablation/values.csv

The photographs are the bundled ones unless --images names a folder; docs/figures.md says what each figure shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import argparse
import csv
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from scipy.stats import spearmanr
from sklearn.manifold import TSNE
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import mrda_loss  # noqa: F401  (registers what option files name)
from mrda_arch import MLN, MRDANet
from mrda_arch.rdan_arch import RDAConv, modulation_maps
from mrda_data import BenchmarkDataset
from mrda_data.degradation.classic import classic_degrade
from mrda_data.images import ImageError
from mrda_data.protocols import Case, protocol_cases
from mrda_data.sources import open_source
from mrda_eval.evaluation import Restorer, evaluate, means
from mrda_eval.report import write_csv
from mrda_metric import metrics_of
from mrda_model.adaptation import Adaptation, adapted_features
from mrda_model.frozen import build_frozen
from mrda_model.restorers import mln_oracle, network_restorer, teacher_oracle
from mrda_options.command_line import parse
from mrda_utils.arguments import HelpFormatter, argument_parser
from mrda_utils.errors import OptionError, UserError, run
from mrda_utils.files import written_whole
from mrda_utils.progress import progress_bar
from mrda_utils.seeding import torch_generator

ROOT = Path(__file__).resolve().parents[1]
KERNEL_SIZE = 21
NEIGHBOURS, FOLDS = 5, 5


class Networks(NamedTuple):
    """What a test's option file names, with its weights; None where it does not."""

    student: MRDANet | None
    teacher: MRDANet | None
    mln: MLN | None
    adaptation: Adaptation | None
    baseline: MRDANet | None


class Setting(NamedTuple):
    """What all figures share."""

    networks: Networks
    opt: dict
    device: torch.device
    images: str
    output: Path


def main(argv: list[str] | None = None) -> None:
    """Draw one figure."""
    parser = argument_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="FIGURE")
    for name, (draw, about) in FIGURES.items():
        command = commands.add_parser(name, help=about, description=about, formatter_class=HelpFormatter)
        command.set_defaults(draw=draw)
        if name == "steps":
            command.add_argument("--values", type=Path, required=True, help="values.csv that scripts/ablation.py wrote")
            command.add_argument("-o", "--output", type=Path, help="by default the folder of --values")
            continue
        command.add_argument("-opt", required=True, help="a test's option file")
        command.add_argument("--images", default="bundled:test", help="folder of HR images")
        command.add_argument("-o", "--output", type=Path, help="by default results/<name of the test>_figures")
        if name == "idr":
            command.add_argument("--baseline", help="weights of a student's network trained without distillation")
            command.add_argument("--crop", type=int, default=128, help="side of the HR crops, pixels")
            command.add_argument("--max_crops", type=int, default=100, help="crops, spread evenly over the images")
        elif name == "adaptation":
            command.add_argument("--mln", nargs="+", default=[], metavar="NAME=WEIGHTS", help="more MLNs to compare")
            command.add_argument("--steps", nargs="+", type=int, default=[0, 1, 2, 3, 5, 7, 10], help="of adaptation")
            command.add_argument("--max_side", type=int, default=192, help="central crop of the images, HR pixels")
        else:
            command.add_argument("--width", type=float, default=2.6, help="of the Gaussian blur, HR pixels")
    args = parser.parse_args(argv)
    pyplot()  # before any work
    with torch.no_grad():
        args.draw(args)


def pyplot() -> ModuleType:
    """Matplotlib without a display.

    Raises:
        UserError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError('matplotlib is not installed; pip install ".[plots]"') from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def read_setting(args: argparse.Namespace) -> Setting:
    """Networks and device of the option file.

    Raises:
        UserError: options, weights or images that are not there or not right.
    """
    command = parse(ROOT, ["-opt", args.opt], is_train=False)
    opt, device = command.opt, command.process.device

    def load(section: str, key: str, stage: str) -> torch.nn.Module | None:
        return build_frozen(opt[section], opt["path"][key], stage, device) if section in opt else None

    student = load("network_g", "pretrain_network_g", "MRDAStudentModel")
    teacher = load("network_t", "pretrain_network_t", "MRDATeacherModel")
    mln = load("network_mln", "pretrain_network_mln", "MLNMetaModel")
    baseline = None
    if getattr(args, "baseline", None):
        if "network_g" not in opt:
            raise OptionError(f"--baseline: {args.opt} has no network_g, whose options it shares")
        baseline = build_frozen(opt["network_g"], str(ROOT / args.baseline), "MRDABaselineModel", device)
    adaptation = Adaptation(**opt["adaptation"]) if "adaptation" in opt else None
    images = args.images if args.images.startswith("bundled:") else str(ROOT / args.images)
    output = ROOT / (args.output or Path("results") / f"{opt['name']}_figures")
    return Setting(Networks(student, teacher, mln, adaptation, baseline), opt, device, images, output)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and PDF and say so.

    Raises:
        UserError: the file system refused.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for kind in ("pdf", "png"):
            with written_whole(path.with_suffix(f".{kind}")) as file:
                figure.savefig(file, format=kind, dpi=120, bbox_inches="tight")
    except OSError as error:
        raise UserError(f"-o {path}: cannot be written ({error.strerror})") from error
    pyplot().close(figure)
    print(f"{path}, and as .pdf")  # noqa: T201


# ------------------------------------------------------------------------------------------- representations: Fig. 7, 8
class Embedded(NamedTuple):
    """A representation in t-SNE's plane."""

    figure: str
    network: str
    degradation: str
    crop: int
    x: float
    y: float


class Accuracy(NamedTuple):
    """How well the degradation of an unseen crop is told by the labels of its nearest neighbours."""

    figure: str
    network: str
    accuracy: float
    chance: float


def degradations(scale: int) -> dict[str, list[Case]]:
    """Cases of each figure: widths without blur to 3.6 (Fig. 7); anisotropic kernels, noise levels (Fig. 8)."""
    anisotropic = protocol_cases("aniso9_dasr", scale)
    return {
        "widths": protocol_cases("width", scale),
        "kernels": [case for case in anisotropic if case.task["noise_sigma_255"] == 0],
        "noise": [case for case in anisotropic if case.kernel == anisotropic[0].kernel],
    }


def crops(images: str, side: int, at_most: int) -> Tensor:
    """Crops (N, 3, side, side) in [0, 1] without overlap, spread evenly over the images.

    Raises:
        ImageError: no image is so large.
    """
    source = open_source(images)
    found = []
    for image in map(source.read, range(len(source.names))):
        for top in range(0, image.shape[0] - side + 1, side):
            found += [image[top : top + side, x : x + side] for x in range(0, image.shape[1] - side + 1, side)]
    if len(found) < FOLDS:
        raise ImageError(f"--images {images}: {len(found)} crops of {side}x{side}, at least {FOLDS} are needed")
    kept = np.linspace(0, len(found) - 1, min(at_most, len(found))).round().astype(int)
    return torch.from_numpy(np.stack([found[i] for i in kept])).permute(0, 3, 1, 2).float() / 255


def idr_sources(networks: Networks) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Name to (lq, gt), each (1, 3, h, w), to representation (1, 4 w); MLN adapts to the image itself."""
    sources: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    if networks.baseline is not None:
        sources["no degradation learning"] = lambda lq, gt: networks.baseline.den(lq)
    if networks.teacher is not None:
        teacher, mln, how = networks.teacher, networks.mln, networks.adaptation
        sources["teacher with MLN"] = lambda lq, gt: teacher.den(adapted_features(mln, lq, gt, how))
    if networks.student is not None:
        sources["student"] = lambda lq, gt: networks.student.den(lq)
    if not sources:
        raise OptionError("-opt: the option file names no network; network_g or network_t is needed")
    return sources


def neighbour_accuracy(idrs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Share of correct k-nearest-neighbour labels in cross-validation; a group is never on both sides.

    Args:
        idrs: (N, D).
        labels: (N,) degradation.
        groups: (N,) what the image shows.
    """
    return float(
        cross_val_score(KNeighborsClassifier(NEIGHBOURS), idrs, labels, groups=groups, cv=GroupKFold(FOLDS)).mean()
    )


class Representations(NamedTuple):
    """What one network makes of all crops under all degradations of a figure."""

    idrs: np.ndarray
    """(N, D)."""
    plane: np.ndarray
    """(N, 2), t-SNE."""
    accuracy: float


def draw_idr(args: argparse.Namespace) -> None:
    """A picture for widths, anisotropic kernels and noise levels; idr.csv and idr_accuracy.csv."""
    setting = read_setting(args)
    scale = setting.opt["scale"]
    if args.crop % scale or args.crop <= KERNEL_SIZE // 2:
        raise OptionError(f"--crop {args.crop}: it must be a multiple of scale {scale} and above {KERNEL_SIZE // 2}")
    sources = idr_sources(setting.networks)
    gt = crops(setting.images, args.crop, args.max_crops)
    points, accuracies = [], []
    for figure, cases in degradations(scale).items():
        labels = np.repeat([case.label for case in cases], len(gt))
        groups = np.tile(np.arange(len(gt)), len(cases))
        lqs = [
            classic_degrade(gt, case.task, scale, KERNEL_SIZE, torch_generator(0, f"figure {figure}", number))
            for number, case in enumerate(cases)
        ]
        found = {
            network: represented(idr, lqs, gt, labels, groups, f"{figure}, {network}", setting.device)
            for network, idr in sources.items()
        }
        for network, own in found.items():
            accuracies.append(Accuracy(figure, network, own.accuracy, 1 / len(cases)))
            points += [
                Embedded(figure, network, label, crop, *map(float, place))
                for label, crop, place in zip(labels.tolist(), groups.tolist(), own.plane, strict=True)
            ]
        save(idr_plot(found, labels, [case.label for case in cases]), setting.output / f"idr_{figure}.png")
    write_csv(points, Embedded._fields, setting.output / "idr.csv")
    write_csv(accuracies, Accuracy._fields, setting.output / "idr_accuracy.csv")
    for accuracy in accuracies:
        print("{:8} {:24} {:.3f} (chance {:.3f})".format(*accuracy))  # noqa: T201
    print(setting.output / "idr.csv")  # noqa: T201


def represented(
    idr: Callable[[Tensor, Tensor], Tensor],
    lqs: list[Tensor],
    gt: Tensor,
    labels: np.ndarray,
    groups: np.ndarray,
    about: str,
    device: torch.device,
) -> Representations:
    """Representations of each crop under each degradation, and how well neighbours tell the degradation."""
    pairs = [(lq[None].to(device), x[None].to(device)) for own in lqs for lq, x in zip(own, gt, strict=True)]
    idrs = torch.cat([idr(*pair) for pair in progress_bar(about, True, pairs, leave=False)]).float().cpu().numpy()
    plane = TSNE(perplexity=min(30, (len(idrs) - 1) / 3), init="pca", random_state=0).fit_transform(idrs)
    return Representations(idrs, plane, neighbour_accuracy(idrs, labels, groups))


def idr_plot(found: dict[str, Representations], labels: np.ndarray, names: list[str]) -> Any:
    """A plane for each network, a colour for each degradation."""
    plot, axes = pyplot().subplots(1, len(found), figsize=(5 * len(found), 5), squeeze=False, layout="constrained")
    for axis, (network, own) in zip(axes[0], found.items(), strict=True):
        for name in names:
            axis.scatter(*own.plane[labels == name].T, s=12, label=name)
        axis.set(title=f"{network}\n{NEIGHBOURS}-NN accuracy {own.accuracy:.2f}", xticks=[], yticks=[])
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return plot


# --------------------------------------------------------------------------------------------- modulation maps: Fig. 10
class Modulation(NamedTuple):
    """One RDA conv's map on one image."""

    image: str
    rda_conv: int
    mean: float
    std: float
    texture_correlation: float
    """Spearman's, with the standard deviation of luma in 5x5 LR pixels."""


def texture(lq: Tensor, size: int = 5) -> np.ndarray:
    """Standard deviation (h, w) of luma in a window around each pixel of (1, 3, h, w)."""
    luma = (lq[0].cpu() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).double().numpy()
    variance = uniform_filter(luma**2, size) - uniform_filter(luma, size) ** 2
    return np.sqrt(variance.clip(0))


def draw_rdam(args: argparse.Namespace) -> None:
    """HR image, mean map and last map, a column an image; rdam.csv."""
    setting = read_setting(args)
    net, scale = setting.networks.student, setting.opt["scale"]
    if net is None:
        raise OptionError(f"-opt {args.opt}: network_g is missing, whose maps are drawn")
    if not any(isinstance(module, RDAConv) for module in net.modules()):
        raise OptionError(f"-opt {args.opt}: network_g has no RDAM, so there is no modulation map")
    if args.width <= 0:
        raise OptionError(f"--width {args.width}: must be positive")
    task = {"sigma_x": args.width, "sigma_y": args.width, "theta": 0.0, "noise_sigma_255": 0.0}
    source = open_source(setting.images)
    names = source.names[:6]  # the figure's width
    plot, axes = pyplot().subplots(3, len(names), figsize=(4 * len(names), 9), squeeze=False, layout="constrained")
    rows = []
    for column, name in zip(axes.T, names, strict=True):
        image = torch.from_numpy(source.read(source.names.index(name))).permute(2, 0, 1).float()[None] / 255
        gt = image[..., : image.shape[-2] // scale * scale, : image.shape[-1] // scale * scale]
        lq = classic_degrade(gt, task, scale, KERNEL_SIZE, torch_generator(0, "rdam"))
        maps, detail = modulation_maps(net, lq.to(setting.device)).float().cpu().numpy(), texture(lq)
        for number, found in enumerate(maps, 1):
            correlation = float(spearmanr(found.ravel(), detail.ravel()).statistic)
            rows.append(Modulation(name, number, float(found.mean()), float(found.std()), correlation))
        column[0].imshow(gt[0].permute(1, 2, 0).numpy())
        for axis, found, title in ((column[1], maps.mean(0), "M, mean of all"), (column[2], maps[-1], "M, last")):
            drawn = axis.imshow(found, cmap="viridis")
            axis.set_title(title)
            plot.colorbar(drawn, ax=axis, fraction=0.046)
        column[0].set_title(name)
        for axis in column:
            axis.set(xticks=[], yticks=[])
    save(plot, setting.output / "rdam.png")
    write_csv(rows, Modulation._fields, setting.output / "rdam.csv")


# --------------------------------------------------------------------------------------------------- adaptation: Fig. 9
class Curve(NamedTuple):
    """Mean PSNR of a method after so many steps of adaptation."""

    method: str
    steps: int
    psnr: float


def mlns(setting: Setting, named: list[str]) -> dict[str, MLN]:
    """The option file's MLN and those of `NAME=WEIGHTS`, which have its size.

    Raises:
        OptionError: the option file has no MLN, or an entry is not of this form.
    """
    if setting.networks.mln is None:
        raise OptionError("-opt: network_mln is missing, which adapts")
    found = {"MLN": setting.networks.mln}
    for entry in named:
        name, equals, path = entry.partition("=")
        if not equals or not name or name in found:
            raise OptionError(f"--mln {entry}: expected NAME=WEIGHTS, each name once")
        found[name] = build_frozen(setting.opt["network_mln"], str(ROOT / path), None, setting.device)
    return found


def draw_adaptation(args: argparse.Namespace) -> None:
    """PSNR on Gaussian8 over the steps of adaptation: MLNs, teacher and, constant, student; adaptation.csv."""
    setting = read_setting(args)
    networks, scale = setting.networks, setting.opt["scale"]
    if min(args.steps) < 0 or len(set(args.steps)) < len(args.steps):
        raise OptionError(f"--steps {' '.join(map(str, args.steps))}: numbers from 0, each once")
    own = mlns(setting, args.mln)
    how, restorers = networks.adaptation, {}
    for steps in args.steps:
        alike = how._replace(inner_lrs=[how.inner_lrs[min(n, len(how.inner_lrs) - 1)] for n in range(steps)])
        methods: dict[str, Restorer] = {name: mln_oracle(mln, alike) for name, mln in own.items()}
        methods["teacher"] = teacher_oracle(networks.teacher, networks.mln, alike)
        restorers |= {(name, steps): restore for name, restore in methods.items()}
    if networks.student is not None:
        restorers["student", 0] = network_restorer(networks.student)
    dataset = BenchmarkDataset(
        {
            "name": "adaptation",
            "dataroot_gt": setting.images,
            "protocol": "gaussian8",
            "scale": scale,
            "kernel_size": KERNEL_SIZE,
            "max_side": args.max_side // scale * scale,
        }
    )
    psnr = metrics_of({"psnr": {"type": "calculate_psnr", "crop_border": scale, "test_y_channel": True}})
    found = [row for item in evaluate(restorers, dataset, psnr, setting.device) for row in item.rows]
    curves = [Curve(*method, value) for method, value in means(found, "method").items()]
    plot, axis = pyplot().subplots(figsize=(6, 4.5))
    for method in dict.fromkeys(curve.method for curve in curves):
        line = sorted((curve.steps, curve.psnr) for curve in curves if curve.method == method)
        if len(line) > 1:
            axis.plot(*zip(*line, strict=True), marker="o", label=method)
        else:
            axis.axhline(line[0][1], linestyle="--", color="gray", label=method)
    axis.set(xlabel="steps of adaptation", ylabel="PSNR on Y, dB", title="Gaussian8")
    axis.legend()
    save(plot, setting.output / "adaptation.png")
    write_csv(curves, Curve._fields, setting.output / "adaptation.csv")


def trained_curves(path: Path) -> dict[str, dict[str, dict[int, list[float]]]]:
    """PSNR of the rows NAME-nSTEPS in a values.csv of scripts/ablation.py: test set, NAME, steps, one value a seed.

    Raises:
        UserError: no such file, not such a table, or one without such rows.
    """
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if match := re.fullmatch(r"(.+)-n(\d+)", row["row"]):
                    lines = found.setdefault(row["dataset"], {})
                    lines.setdefault(match[1], {}).setdefault(int(match[2]), []).append(float(row["psnr"]))
    except OSError as error:
        raise UserError(f"--values {path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"--values {path}: not a values.csv of scripts/ablation.py ({error})") from error
    if not found:
        raise UserError(f"--values {path}: none of the rows T2-n1 ... S3-n7; scripts/ablation.py trains them")
    return found


def draw_steps(args: argparse.Namespace) -> None:
    """PSNR over the steps of adaptation that networks were trained with: a panel a test set, a line a network."""
    path = ROOT / args.values
    found = trained_curves(path)
    plot, axes = pyplot().subplots(1, len(found), figsize=(5 * len(found), 4), squeeze=False, layout="constrained")
    for axis, (dataset, lines) in zip(axes[0], found.items(), strict=True):
        for name, line in lines.items():
            steps = sorted(line)
            spread = [float(np.std(line[n], ddof=1)) if len(line[n]) > 1 else 0.0 for n in steps]
            axis.errorbar(steps, [np.mean(line[n]) for n in steps], spread, marker="o", capsize=3, label=name)
        axis.set(xlabel="steps of adaptation", ylabel="PSNR on Y, dB", title=dataset)
        axis.legend()
    save(plot, ROOT / (args.output or path.parent) / "adaptation_trained.png")


FIGURES = {
    "idr": (draw_idr, "representations in t-SNE's plane, and how well neighbours tell the degradation (Fig. 7, 8)"),
    "rdam": (draw_rdam, "modulation maps of the student (Fig. 10)"),
    "adaptation": (draw_adaptation, "PSNR over the steps of adaptation of one teacher (Fig. 9a)"),
    "steps": (draw_steps, "PSNR over the steps that teacher and student were trained with (Fig. 9b)"),
}

if __name__ == "__main__":
    run(main)
