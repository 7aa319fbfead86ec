"""Coverage-guided fuzzing, which pytest does not run; it needs `pip install atheris` beside the project.

python tests/security/fuzz.py checkpoint FOLDER -max_total_time=3600
python tests/security/fuzz.py options FOLDER -max_total_time=3600
python tests/security/fuzz.py image FOLDER -max_total_time=3600

FOLDER keeps what was found interesting; an input that ends in anything but a UserError is written beside it. Further
arguments are libFuzzer's.
"""

# ruff: noqa: E402, I001 (what atheris watches is imported in its own way)
from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(
    include=[
        *("mrda_utils.pickle_scan", "mrda_utils.checkpoint", "mrda_utils.yaml_text", "mrda_options"),
        *("mrda_data.images", "mrda_data.decoding"),
    ]
):
    import mrda_utils.compat  # noqa: F401  (first)
    from mrda_utils import checkpoint, pickle_scan  # noqa: F401
    from mrda_utils.yaml_text import parse_yaml
    import mrda_arch  # noqa: F401
    import mrda_data  # noqa: F401
    import mrda_loss  # noqa: F401
    import mrda_metric  # noqa: F401
    from mrda_model import training_state
    from mrda_options import validate

import numpy as np
import torch
from PIL import Image

from mrda_data.images import ImageError, decode_rgb8
from mrda_utils.errors import OptionError

FILE = Path(tempfile.mkdtemp()) / "w.pth"


def archive(pickled: bytes, storage: bytes) -> bytes:
    """A checkpoint of a pickle and one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        for name, content in {
            "data.pkl": pickled,
            "byteorder": b"little",
            "data/0": storage,
            "version": b"3\n",
        }.items():
            parts.writestr(f"a/{name}", content)
    return file.getvalue()


def check_checkpoint(data: bytes) -> None:
    """The first byte says what the others are: a file, a pickle in a whole archive, or a safetensors file."""
    kind, content = data[:1], data[1:]
    path = FILE.with_suffix(".safetensors") if kind == b"s" else FILE
    path.write_bytes(archive(content, bytes(16)) if kind == b"p" else content)
    for read in (checkpoint.load, training_state.load_state):
        with contextlib.suppress(checkpoint.CheckpointError):
            found = read(path)
            checkpoint.weights_of(found, "params", path)


def check_options(data: bytes) -> None:
    """An option file; the first byte says whether it is a test's."""
    with contextlib.suppress(OptionError):
        validate(parse_yaml(data[1:].decode("utf-8", "replace"), "x"), data[:1] != b"t", "x")


def check_image(data: bytes) -> None:
    """An image file."""
    with contextlib.suppress(ImageError):
        image = decode_rgb8(np.frombuffer(data, np.uint8), "x")
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


def seeds(target: str) -> list[bytes]:
    """Whole inputs to begin with."""
    if target == "options":
        files = sorted((ROOT / "options").rglob("*.yml"))
        return [(b"t" if "test" in file.name else b"f") + file.read_bytes() for file in files]
    if target == "image":
        return [picture(mode, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM") for mode in ("RGB", "L")]
    found = []
    state = {"iter": 3, "mrda": {"stage": "x", "scale": 4, "degradation": None}, "optimizers": [{"state": {}}]}
    state |= {"best_metric_results": {"a": {"b": {"val": 1.0, "iter": 1}}}, "validated_iter": 1, "skipped": [0.0, 0.0]}
    for content in ({"params": {"a": torch.ones(4), "b": torch.nn.Parameter(torch.ones(2, 2))}}, state):
        old, new = io.BytesIO(), io.BytesIO()
        torch.save(content, old, _use_new_zipfile_serialization=False)
        torch.save(content, new)
        with zipfile.ZipFile(new) as parts:
            found += [b"f" + old.getvalue(), b"f" + new.getvalue(), b"p" + parts.read("archive/data.pkl")]
    checkpoint.save_safetensors({"a": torch.ones(2)}, state["mrda"], {}, FILE.with_suffix(".safetensors"))
    return [*found, b"s" + FILE.with_suffix(".safetensors").read_bytes()]


def picture(mode: str, kind: str) -> bytes:
    """An image file of 5 x 4 pixels."""
    file = io.BytesIO()
    Image.new(mode, (5, 4)).save(file, kind)
    return file.getvalue()


def main() -> None:
    """Write the seeds into FOLDER and fuzz."""
    target, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (folder / f"seed{number}").write_bytes(seed)
    check: Callable[[bytes], None] = {"checkpoint": check_checkpoint, "options": check_options, "image": check_image}[
        target
    ]
    arguments = ["-timeout=30", "-rss_limit_mb=4096", f"-artifact_prefix={folder}-found-", *sys.argv[2:]]
    atheris.Setup([sys.argv[0], *arguments], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
