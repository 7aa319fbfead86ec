"""What is built of this checkout: what the files hold, and that they work far from it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def python(*arguments, cwd, program=sys.executable):
    """Run Python as from a user's shell; return what it prints."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [program, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Folder with an sdist of the checkout and a wheel made from that sdist, as `python -m build` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    # a copy: the checkout's own metadata may be those of an editable installation
    copy = shutil.ignore_patterns(
        ".*", "*.egg-info", "build", "dist", "experiments", "results", "datasets", "__pycache__"
    )
    shutil.copytree(ROOT, folder / "copy", ignore=copy)
    python("-c", BUILD, "build_sdist", folder, cwd=folder / "copy")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (unpacked,) = (folder / "sdist").iterdir()
    python("-c", BUILD, "build_wheel", folder, cwd=unpacked)
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        yield archive


def test_the_wheel_holds_all_of_the_packages_and_the_weights(wheel):
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = (path.relative_to(ROOT) for path in ROOT.glob("mrda_*/**/*") if path.is_file())
    packages = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    weights = {f"mrda_weights/{path.name}" for path in (ROOT / "weights").iterdir() if path.is_file()}
    assert {name for name in weights if name.endswith(".safetensors")}
    assert found == packages | weights


def test_the_wheel_says_what_it_needs_and_under_which_licence(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    about = Parser().parsestr(wheel.read(name).decode())
    assert about["License"] == "Apache-2.0"
    assert set(about["Requires-Python"].split(",")) == {">=3.10", "<3.15"}
    assert "basicsr==1.4.2" in about.get_all("Requires-Dist")  # no file of the machine that built it
    assert not any("file:" in need for need in about.get_all("Requires-Dist"))
    licences = {Path(name).name for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "CITATION.cff"}
    about_weights = wheel.read("mrda_weights/README.md").decode()
    assert "Licence: that of the project" in " ".join(about_weights.split())  # wherever its lines are broken


def test_the_sdist_holds_the_programs_sources_alone(dist):
    (unpacked,) = (dist / "sdist").iterdir()
    top = {path.name for path in unpacked.iterdir()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "mrda_arch", "weights"} <= top
    assert not top & {"third_party", "options", "datasets", "experiments", "results"}


@pytest.mark.slow
def test_installed_elsewhere_it_upscales_and_the_readmes_lines_work(dist, tmp_path):
    """In an environment of its own, which sees this one's dependencies, far from the checkout."""
    environment = tmp_path / "environment"
    python("-m", "venv", "--without-pip", environment, cwd=tmp_path)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    program = scripts / Path(sys.executable).name
    program = program if program.exists() else scripts / "python"
    site = python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path, program=program).strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # editable ones in it do not count
    (wheel,) = dist.glob("*.whl")
    options = ["--no-deps", "--no-index", "--ignore-installed", "--quiet"]
    python("-m", "pip", "--python", program, "install", *options, wheel, cwd=tmp_path)

    Image.effect_noise((24, 20), 50).convert("RGB").save(tmp_path / "a.png")
    done = python("-i", "a.png", "-o", "out", cwd=tmp_path, program=scripts / "mrda-upscale")
    assert "1 upscaled" in done
    with Image.open(tmp_path / "out/a.png") as image:
        assert image.size == (96, 80)

    (snippet,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
        if "net(lq)" in code
    )
    lines = [
        "import torch",
        "lq = torch.rand(1, 3, 20, 24)",
        snippet,
        "print(*sr.shape, sys.modules['mrda_arch'].__file__)",
    ]
    said = python("-c", "\n".join(["import sys", *lines]), cwd=tmp_path, program=program)
    assert said.startswith(f"1 3 80 96 {environment}")


# ------------------------------------------------------------------------------------------------------------ BasicSR
def test_basicsr_is_packed_without_running_its_setup(tmp_path):
    """Its setup.py fails on Python 3.13 and later."""
    (tmp_path / "setup.py").write_text("raise SystemExit('run')")
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: basicsr\nVersion: 1.4.2\nLicense: Apache\n")
    for name, text in {
        "basicsr/__init__.py": "x = 1\n",
        "basicsr/data/meta_info/a.txt": "a\n",
        "basicsr.egg-info/requires.txt": "numpy>=1.17\ntorch>=1.7\n",
        "LICENSE.txt": "licence\n",
        "tests/test.py": "raise SystemExit('run')",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    stand_in = ROOT / "third_party/basicsr/stand_in"
    program = (
        f"import sys; sys.path.insert(0, {str(stand_in)!r}); from setuptools.build_meta import __legacy__ as backend"
    )
    python("-c", f"{program}; backend.build_wheel('.')", cwd=tmp_path)
    with zipfile.ZipFile(tmp_path / "basicsr-1.4.2-py3-none-any.whl") as archive:
        names, info = archive.namelist(), "basicsr-1.4.2.dist-info"
        assert [name for name in names if info not in name] == ["basicsr/__init__.py", "basicsr/data/meta_info/a.txt"]
        about = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        assert (about["Version"], about["License"]) == ("1.4.2", "Apache")
        assert about.get_all("Requires-Dist") == ["numpy>=1.17", "torch>=1.7"]
        record = [line.split(",") for line in archive.read(f"{info}/RECORD").decode().splitlines()]
        assert [name for name, _, _ in record] == names
        for name, digest, _ in record[:-1]:
            expected = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).decode().rstrip("=")
            assert digest == f"sha256={expected}"
