"""Make a virtual environment with everything that demo and tests need: python scripts/make_environment.py [FOLDER].

What the machine lacks is said at once, before anything is downloaded. Runs with any Python 3.6 or later, to say so.
"""

import argparse
import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from mrda_utils import __version__  # noqa: E402  (which takes nothing else)

PYTHONS = [(3, minor) for minor in range(10, 15)]
LIBRARIES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}  # Debian's packages of them
MESSAGE = {  # with CUDA's libraries or without them
    True: "about 3.3 GB to download and 6.4 GB in {}; docs/installation.md has smaller ways",
    False: "about 0.5 GB to download and 1.8 GB in {}",
}
DISK = {True: 13, False: 3}  # GB while it is made: files on their way, pip's cache and what is installed


def brings_cuda():
    """Whether pip takes torch with CUDA's libraries: on Linux, unless an index of CPU builds is named."""
    indexes = os.environ.get("PIP_EXTRA_INDEX_URL", "") + os.environ.get("PIP_INDEX_URL", "")
    return sys.platform == "linux" and "/cpu" not in indexes


def unsupported():
    """What can't be mended on this machine, a line each."""
    machine = platform.machine().lower()
    if sys.platform == "darwin" and machine == "x86_64":
        yield "a Mac with Apple's processor; torch has ended its builds for Intel's"
    if sys.platform == "win32" and machine == "arm64":
        yield "Windows on an x86-64 processor; OpenCV and others have no builds for ARM's"
    if sys.platform == "linux" and "musl" in (sysconfig.get_config_var("SOABI") or ""):
        yield "a Linux with glibc; torch has no builds for musl (Alpine)"


def missing(folder):
    """Everything that is missing and the Debian packages that have it, a (line, package or None) each."""
    version = sys.version_info[:2]
    if version not in PYTHONS:
        first, last = ("{}.{}".format(*python) for python in (PYTHONS[0], PYTHONS[-1]))
        found = "{}.{}".format(*version)
        yield f"Python {first} to {last}, this is {found}: make demo PYTHON=python3.12", None
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        yield "Python's venv and ensurepip", "python{}.{}-venv".format(*version)
    for name, package in LIBRARIES.items() if sys.platform == "linux" else ():
        try:
            ctypes.CDLL(name)
        except OSError:
            yield f"{name}, which OpenCV needs", package
    free, needed = shutil.disk_usage(str(folder.parent)).free / 1e9, DISK[brings_cuda()]
    if free < needed and not folder.exists():
        yield f"{needed} GB of disk, {folder.parent} has {free:.1f}; docs/installation.md has smaller ways", None


def check(folder):
    """End with one message that names all that the machine lacks."""
    lacking = [(line, None) for line in unsupported()] + list(missing(folder))
    if not lacking:
        return
    packages = [package for _, package in lacking if package]
    lines = ["this machine lacks", *(f"  {line}" for line, _ in lacking)]
    if packages and shutil.which("apt-get"):
        lines.append("apt-get install " + " ".join(packages))
    sys.exit("\n".join(lines))


def install(folder):
    """Make the environment anew and fill it; pip shows what it does."""
    print(MESSAGE[brings_cuda()].format(folder), flush=True)  # noqa: T201
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    downloads = folder / "downloads"  # pip's place is /tmp, which is in memory on many a system
    downloads.mkdir()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    environment = {**os.environ, "TMPDIR": str(downloads)}
    for arguments in (
        ["--quiet", "--upgrade", "pip", "setuptools"],
        ["--no-build-isolation", "--editable", ".[test]"],
    ):
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--constraint", "constraints.txt"]
        command = [*pip, *arguments]
        subprocess.run(command, check=True, cwd=str(ROOT), env=environment)
    shutil.rmtree(str(downloads), ignore_errors=True)
    (folder / ".ready").touch()


def main():
    """Check, then install."""
    parser = argparse.ArgumentParser(description=__doc__.split(":", 1)[0])
    parser.add_argument("--version", action="version", version=f"mrda {__version__}")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".venv", help="default: .venv in the checkout")
    args = parser.parse_args()
    folder = args.folder if args.folder.is_absolute() else Path.cwd() / args.folder
    check(folder)
    try:
        install(folder)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has said why


if __name__ == "__main__":
    main()
