"""Take the grid out of what a student draws: its last convolution is fitted anew, in closed form.

    python scripts/remove_checkerboard.py student.pth -opt options/lite_photo/train_student_gan_x4.yml -o no_grid.pth

A network that ends in one convolution and one pixel shuffle draws the scale^2 pixels of each LR pixel with filters of
their own. Adversarial training lets these drift apart: smooth surfaces get a grid of that period (checkerboard
artefacts, Odena et al., Distill 2016). The option file is that of the training; its photographs are degraded as there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

import mrda_loss  # noqa: F401  (these imports register what option files name)
from mrda_arch import MRDANet, network_from_file
from mrda_data.gt_dataset import GTDataset
from mrda_model.degraded_tasks import DegradedTasks
from mrda_options import read_options
from mrda_utils import checkpoint
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, run

SAMPLES = 400  # the first crops of the training
CELL = 8  # LR pixels; a grid is what repeats over a cell


def cell_phases(image: Tensor, scale: int) -> Tensor:
    """What repeats in each cell: its mean at each of the scale^2 phases, less the mean of all.

    Args:
        image: (1, C, H, W), the sides multiples of CELL scale.
        scale: period of the grid.

    Returns:
        (1, C scale^2, H / (CELL scale), W / (CELL scale)).
    """
    phases = F.avg_pool2d(F.pixel_unshuffle(image, scale), CELL).unflatten(1, (-1, scale**2))
    return (phases - phases.mean(2, keepdim=True)).flatten(1, 2)


def refit(net: MRDANet, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Correct the last convolution of `net` by least squares, so that its cells repeat what those of the truth do.

    The correction of each output is the linear function of the convolution's inputs that comes closest, at each LR
    pixel, to the mean error of this phase over the cell. So it has little to say about anything that does not repeat.

    Args:
        net: a student whose upscaler is direct; changed in place.
        pairs: LR (1, 3, h, w) and ground truth (1, 3, scale h, scale w), in [0, 1]; h and w multiples of CELL.
    """
    conv = net.rdan.upscaler[0]
    size = conv.weight[0].numel() + 1
    normal = torch.zeros(size, size, dtype=torch.float64)
    moments = torch.zeros(size, conv.out_channels, dtype=torch.float64)
    inputs: list[Tensor] = []
    hook = conv.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        for lq, gt in tqdm(pairs, desc="fit", leave=False, disable=None):
            wanted = cell_phases(gt - net(lq), net.upscale).repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
            seen = F.unfold(inputs.pop(), conv.kernel_size, padding=conv.padding)[0]
            seen = torch.cat([seen, torch.ones_like(seen[:1])]).double()
            normal += seen @ seen.T
            moments += seen @ wanted[0].flatten(1).T.double()
    finally:
        hook.remove()
    correction = (torch.linalg.pinv(normal, hermitian=True) @ moments).T
    conv.weight += correction[:, :-1].view_as(conv.weight)
    conv.bias += correction[:, -1]


def grid(images: Sequence[Tensor], scale: int) -> float:
    """How strong the grid is where it is seen: root mean square of what repeats in a cell, on the 0-255 scale.

    A tenth of the cells has less: smooth ones, since texture does not quite cancel over a cell.
    """
    cells = torch.cat([cell_phases(image, scale).flatten(2) for image in images], 2)
    return float(255 * cells.square().mean(1).sqrt().quantile(0.1))


def training_pairs(path: str, scale: int) -> list[tuple[Tensor, Tensor]]:
    """LR (1, 3, h, w) and ground truth of the first crops of a training, at least SAMPLES, degraded as there.

    Raises:
        OptionError: the option file is of another scale, or its crops are smaller than a cell.
    """
    opt, _ = read_options(path, True, ["datasets:train:cache=none"])
    if opt["scale"] != scale:
        raise OptionError(f"{path}: scale {opt['scale']}, but the network's is {scale}")
    if opt["datasets"]["train"]["type"] != "GTDataset":
        raise OptionError(f"{path}: datasets.train.type: must be GTDataset, whose photographs are degraded here")
    train_set = {**opt["datasets"]["train"], "manual_seed": opt["manual_seed"]}
    side = train_set["gt_size"] // (CELL * scale) * CELL * scale
    if not side:
        raise OptionError(f"{path}: datasets.train.gt_size {train_set['gt_size']}: must be at least {CELL * scale}")
    dataset, degraded_tasks = GTDataset(train_set), DegradedTasks(opt, torch.device("cpu"))
    pairs: list[tuple[Tensor, Tensor]] = []
    while len(pairs) < SAMPLES:
        samples = range(len(pairs), len(pairs) + train_set["images_per_task"])
        for task in degraded_tasks(default_collate([dataset[sample] for sample in samples])):
            lq, gt = task.lq[..., : side // scale, : side // scale], task.gt[..., :side, :side]
            pairs += zip(lq.split(1), gt.split(1), strict=True)
    return pairs


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    """Refit the student that the command line names; print its grid before and after, and that of the photographs."""
    parser = argument_parser(__doc__)
    parser.add_argument("weights", help="a student's .pth or .safetensors, averaged weights where there are any")
    parser.add_argument("-opt", required=True, help="option file of its training")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".pth to write")
    args = parser.parse_args(argv)
    if args.output.suffix != ".pth":
        raise OptionError(f"-o {args.output}: must end in .pth")
    net = network_from_file(args.weights)
    if not isinstance(net, MRDANet) or net.den.body[0].in_channels != 3 or len(net.rdan.upscaler) != 2:
        raise OptionError(f"{args.weights}: no student that ends in one convolution (upsampler: pixelshuffledirect)")
    pairs = training_pairs(args.opt, net.upscale)
    before = grid([net(lq) for lq, _ in pairs], net.upscale)
    refit(net, pairs)
    after, truth = (grid(images, net.upscale) for images in ([net(lq) for lq, _ in pairs], [gt for _, gt in pairs]))
    origin = {key: value for key, value in checkpoint.load(args.weights).items() if key == "mrda"}
    checkpoint.save({"params": net.state_dict(), "params_ema": net.state_dict(), **origin}, args.output)
    print(f"{args.output}: grid of {after:.2f}, {before:.2f} before, {truth:.2f} in the photographs (of 255)")  # noqa: T201


if __name__ == "__main__":
    run(main)
