"""PEP 517 backend: the wheel of BasicSR's release, which pip fetches from wherever it is configured to.

pip has no command that fetches a source release and leaves it alone; so it is made to build the wheel, and finds
`stand_in` where it looks for setuptools.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def build_wheel(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """Have pip fetch the release, check its hash and call `stand_in`; returns the file's name."""
    outer = ("_PYPROJECT_HOOKS_", "PEP517_")  # what the pip that called this backend tells it
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE / "stand_in"), environment.get("PYTHONPATH")]))
    release = ["--requirement", str(HERE / "requirements.txt"), "--require-hashes", "--no-deps"]
    build = ["--no-build-isolation", "--use-pep517", "--no-cache-dir", "--wheel-dir", wheel_directory]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *release, *build], env=environment, check=True)
    return "basicsr-1.4.2-py3-none-any.whl"
