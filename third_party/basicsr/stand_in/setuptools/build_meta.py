"""Packs the source release of BasicSR in the current folder into a wheel; none of its code runs."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

INFO = "basicsr-1.4.2.dist-info"
WHEEL = "Wheel-Version: 1.0\nGenerator: mrda\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
__legacy__ = sys.modules[__name__]  # the backend of a release without pyproject.toml


def build_wheel(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """Write the wheel and return its name."""
    files = {path.as_posix(): path.read_bytes() for path in sorted(Path("basicsr").rglob("*")) if path.is_file()}
    files[f"{INFO}/licenses/LICENSE.txt"] = Path("LICENSE.txt").read_bytes()
    files[f"{INFO}/METADATA"] = _metadata().encode()
    files[f"{INFO}/WHEEL"] = WHEEL.encode()
    record = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items()]
    files[f"{INFO}/RECORD"] = "".join([*record, f"{INFO}/RECORD,,\n"]).encode()
    target = "basicsr-1.4.2-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, target), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2022, 8, 30, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return target


def _metadata() -> str:
    """The release's own metadata, which name its dependencies in a file beside them."""
    head, version, rest = Path("PKG-INFO").read_text(encoding="utf-8").partition("Version: 1.4.2\n")
    needed = Path("basicsr.egg-info/requires.txt").read_text(encoding="utf-8").split()
    return head + version + "".join(f"Requires-Dist: {name}\n" for name in needed) + rest


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
