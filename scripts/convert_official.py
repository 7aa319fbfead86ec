"""Bring the authors' released weights into this project's layout, and back.

python scripts/convert_official.py model.pt -o out.pth [--reverse]

Student, teacher and MLN are recognised by their keys; scale, widths and number of blocks are read off the shapes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import re

import torch
from torch import Tensor, nn

from mrda_arch import MLN, MRDANet
from mrda_arch.rdan_arch import RGB_MEAN
from mrda_model.weights import Provenance, load_network, save_network
from mrda_options.registered import LARGEST_WIDTH
from mrda_utils import checkpoint
from mrda_utils.arguments import argument_parser
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import run

Weights = dict[str, Tensor]

STAGES = {"student": "MRDAStudentModel", "teacher": "MRDATeacherModel", "MLN": "MLNMetaModel"}
FIRST_KEYS = {"student": "E_st.E.0.weight", "teacher": "E.E.0.weight", "MLN": "head.0.weight"}
# our layers to theirs; DEN is E_st in a student and E in a teacher
LAYERS = (
    (r"den\.body\.(\d+)", r"DEN.E.\1"),
    (r"den\.mlp\.(\d+)", r"DEN.mlp.\1"),
    (r"rdan\.head", r"G.head.0"),
    (r"rdan\.compress\.0", r"G.compress.0"),
    (r"rdan\.blocks\.(\d+)\.rda(\d)\.kernel\.(\d+)", r"G.body.0.body.\1.da_conv\2.kernel.\3"),
    (r"rdan\.blocks\.(\d+)\.rda(\d)\.modulation", r"G.body.0.body.\1.da_conv\2.conv"),
    (r"rdan\.blocks\.(\d+)\.conv(\d)", r"G.body.0.body.\1.conv\2"),
    (r"rdan\.body_tail", r"G.body.1"),
    (r"rdan\.upscaler\.(\d+)", r"G.tail.0.\1"),
    (r"body\.0", r"head.0"),
    (r"body\.(\d+)", lambda match: f"body.{int(match[1]) - 2}"),
    (r"upscaler\.(\d+)", r"tail.0.\1"),
)


def official_name(name: str, kind: str, last: str) -> str:
    """The authors' name of our parameter `name`; `last` is the upscaler's last layer, which has a place of its own."""
    layer, _, parameter = name.rpartition(".")
    for ours, theirs in LAYERS:
        if re.fullmatch(ours, layer):
            renamed = re.sub(ours, theirs, layer).replace("DEN", FIRST_KEYS[kind].split(".")[0])
            return f"{renamed.replace(f'tail.0.{last}', 'tail.1')}.{parameter}"
    return name  # a buffer, which the authors do not have


def official_names(names: list[str], kind: str) -> dict[str, str]:
    """Our parameters' names to the authors'."""
    last = max((m[1] for name in names if (m := re.search(r"upscaler\.(\d)\.", name))), default="")
    return {name: official_name(name, kind, last) for name in names}


def mean_shift() -> Weights:
    """The fixed 1x1 convolutions by which the authors subtract and add the RGB mean, a buffer of ours."""
    weight, mean = torch.eye(3).view(3, 3, 1, 1), torch.tensor(RGB_MEAN)
    return {
        "G.sub_mean.weight": weight.clone(),
        "G.sub_mean.bias": -mean,
        "G.add_mean.weight": weight.clone(),
        "G.add_mean.bias": mean,
    }


def kind_of(weights: Weights, source: Path) -> str:
    """Whose weights these are, under the authors' names."""
    for kind, key in FIRST_KEYS.items():
        if key in weights:
            return kind
    raise CheckpointError(
        f"{source}: neither student, teacher nor MLN; it has none of {', '.join(FIRST_KEYS.values())}"
    )


def build(weights: Weights, kind: str, source: Path) -> nn.Module:
    """The network whose sizes these weights, under the authors' names, have; not yet filled with them.

    Raises:
        CheckpointError: a layer that determines the size is missing, or its size belongs to no scale.
    """
    prefix = "" if kind == "MLN" else "G."
    for name in (f"{prefix}head.0.weight", f"{prefix}tail.0.0.weight", FIRST_KEYS[kind]):
        if name not in weights or weights[name].ndim != 4 or not weights[name].numel():
            raise CheckpointError(f"{source}: a {kind} without {name}")
    num_feat = len(weights[f"{prefix}head.0.weight"])
    growth = len(weights[f"{prefix}tail.0.0.weight"]) / num_feat, f"{prefix}tail.0.2.weight" in weights
    scales = {(4, False): 2, (9, False): 3, (4, True): 4}
    if growth not in scales:
        raise CheckpointError(f"{source}: {prefix}tail.0 upscales by none of 2, 3 and 4")
    make, size = MLN, {"num_feat": num_feat, "upscale": scales[growth]}
    if kind != "MLN":
        den_feat, den_in_ch = weights[FIRST_KEYS[kind]].shape[:2]
        blocks = {m[1] for name in weights if (m := re.match(r"G\.body\.0\.body\.(\d+)\.", name))}
        if len(blocks) > LARGEST_WIDTH:
            raise CheckpointError(f"{source}: {len(blocks)} blocks are more than {LARGEST_WIDTH}")
        make, size = MRDANet, size | {"num_block": len(blocks), "den_feat": den_feat, "den_in_ch": den_in_ch}
    with torch.device("meta"):  # takes no memory, whatever sizes the file claims
        claimed = sum(p.numel() for p in make(**size).parameters())
    if claimed > source.stat().st_size:
        raise CheckpointError(f"{source}: its first layers are those of {claimed:,d} parameters, more than it holds")
    return make(**size)


def check(weights: Weights, expected: Weights, source: Path) -> None:
    """Compare names, shapes and types of two state dicts.

    Raises:
        CheckpointError: names each kind of difference, up to three of each.
    """

    def shown(names: list[str]) -> str:
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    differences = {
        "unknown": [name for name in weights if name not in expected],
        "missing": [name for name in expected if name not in weights],
        "of another shape or type": [
            f"{name} {tuple(weights[name].shape)} {weights[name].dtype} instead of {tuple(t.shape)} {t.dtype}"
            for name, t in expected.items()
            if name in weights and (weights[name].shape, weights[name].dtype) != (t.shape, t.dtype)
        ],
    }
    problems = [f"{what}: {shown(names)}" for what, names in differences.items() if names]
    if problems:
        raise CheckpointError(f"{source}: {'; '.join(problems)}")


def from_official(source: Path, target: Path) -> str:
    """Read a bare state dict of the authors, write BasicSR's layout; return what it is.

    Raises:
        CheckpointError: a damaged file, keys or shapes that are not those of the published networks, another mean.
    """
    weights = checkpoint.weights_of(checkpoint.load(source), "params", source)
    kind = kind_of(weights, source)
    net = build(weights, kind, source)
    state, parameters = net.state_dict(), dict(net.named_parameters())
    names = official_names(list(parameters), kind)
    fixed = {} if kind == "MLN" else mean_shift()
    check(weights, {theirs: parameters[ours] for ours, theirs in names.items()} | fixed, source)
    for name, tensor in fixed.items():
        if not torch.allclose(weights[name], tensor, atol=1e-6):
            raise CheckpointError(
                f"{source}: {name} is not the mean shift by {RGB_MEAN} that the published networks have"
            )
    net.load_state_dict(state | {ours: weights[theirs] for ours, theirs in names.items()})
    save_network({"params": net}, Provenance(STAGES[kind], net.upscale, None), 0, target)
    return _summary(kind, net)


def to_official(source: Path, target: Path) -> str:
    """Read this project's weights (averaged ones where there are any), write a bare state dict; return what it is.

    Raises:
        CheckpointError: a damaged file, or a network that does not exist in the authors' layout.
    """
    weights = checkpoint.weights_of(checkpoint.load(source), "params_ema", source)
    first = weights.get("den.body.0.weight")
    kind = "MLN" if first is None or first.ndim < 2 else "student" if first.shape[1] == 3 else "teacher"
    names = official_names(list(weights), kind)
    renamed = {theirs: weights[ours] for ours, theirs in names.items()}
    net = build(renamed, kind_of(renamed, source), source)
    load_network(net, source)
    fixed = {} if kind == "MLN" else mean_shift()
    checkpoint.save(fixed | {names[ours]: t.detach() for ours, t in net.named_parameters()}, target)
    return _summary(kind, net)


def _summary(kind: str, net: nn.Module) -> str:
    return f"{kind} x{net.upscale}, {sum(p.numel() for p in net.parameters()):,d} parameters"


def main() -> None:
    """Convert the file that the command line names."""
    parser = argument_parser(__doc__)
    parser.add_argument("model", type=Path, help="file to convert")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    parser.add_argument("--reverse", action="store_true", help="from this project's layout to the authors'")
    args = parser.parse_args()
    summary = (to_official if args.reverse else from_official)(args.model, args.output)
    print(f"{args.output}: {summary}")  # noqa: T201


if __name__ == "__main__":
    run(main)
