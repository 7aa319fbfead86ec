"""Paths of the weights that are shipped with the project."""

from __future__ import annotations

from pathlib import Path

from mrda_utils.errors import UserError

PREFIX = "shipped:"
ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "mrda_weights", ROOT / "weights")  # next to the installed packages; in a clone


def shipped_names() -> list[str]:
    """Names of all weights that are there, as `shipped_weights` takes them."""
    return sorted(PREFIX + path.stem for folder in FOLDERS for path in folder.glob("*.safetensors"))


def shipped_weights(name: str) -> Path:
    """File of the weights called `shipped:<name>`.

    Raises:
        UserError: there are none of this name.
    """
    for folder in FOLDERS:
        path = folder / f"{name.removeprefix(PREFIX)}.safetensors"
        if f"{PREFIX}{path.stem}" == name and path.is_file():
            return path
    raise UserError(f"{name}: no such weights; known: {', '.join(shipped_names()) or 'none'}")
