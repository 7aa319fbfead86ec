"""Every program sets how OpenMP's threads wait before torch is loaded, unless the user has set it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mrda_utils import __version__
from mrda_utils.arguments import argument_parser

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    *(ROOT / name for name in ("train.py", "test.py", "inference.py")),
    *sorted(ROOT.glob("scripts/*.py")),
    *sorted(path for path in ROOT.glob("benchmarks/*.py") if "__main__" in path.read_text()),
]
CONSOLE = re.findall(r"mrda-\w+=([\w.]+):main", (ROOT / "setup.py").read_text())
LOADED_LATER = {"mrda_inference.web": "mrda_inference.web.server"}  # by a program that says something first
# ends a program where torch would be loaded
PROGRAM = """
import importlib, os, runpy, sys

class Torch:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Torch)
target, sys.argv = sys.argv[1], [sys.argv[1], "--help"]
runpy.run_path(target, run_name="__main__") if target.endswith(".py") else importlib.import_module(target)
"""


def told(target, **environment):
    """OMP_WAIT_POLICY and GOMP_SPINCOUNT when `target`, a file or the module of a console script, loads torch."""
    base = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", PROGRAM, str(target)]
    done = subprocess.run(command, cwd=ROOT, env={**base, **environment}, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()[0]


@pytest.mark.parametrize("target", [*FILES, *CONSOLE], ids=lambda target: getattr(target, "name", target))
def test_openmp_is_told_before_torch_is_loaded(target):
    assert len(CONSOLE) == 2
    said = told(LOADED_LATER.get(target, target))
    without_torch = getattr(target, "name", None) in ("fetch_open_photos.py", "make_environment.py")
    assert said == "None 1000" or (without_torch and said.startswith("usage"))


def test_what_the_user_has_set_stays():
    assert told(ROOT / "train.py", OMP_WAIT_POLICY="PASSIVE") == "PASSIVE None"
    assert told(ROOT / "train.py", GOMP_SPINCOUNT="7") == "None 7"


def test_every_program_tells_its_version(capsys):
    """Command lines are made in one place; that which runs on any Python before anything is installed has its own."""
    with pytest.raises(SystemExit):
        argument_parser("About.").parse_args(["--version"])
    assert capsys.readouterr().out == f"mrda {__version__}\n"
    alone = ROOT / "scripts/make_environment.py"
    made = subprocess.run([sys.executable, "-I", alone, "--version"], capture_output=True, text=True, check=True)
    assert made.stdout == f"mrda {__version__}\n"
    sources = {path: path.read_text() for path in [*ROOT.glob("mrda_*/**/*.py"), *FILES]}
    others = [path for path, text in sources.items() if "ArgumentParser(" in text]
    assert sorted(others) == [ROOT / "mrda_utils/arguments.py", alone]
    programs = [path for path in FILES if path.parent != ROOT and path != alone]
    assert programs
    assert all("= argument_parser(" in sources[path] for path in programs)


@pytest.mark.parametrize("words", [["--name", ""], ["--folder="], ["--several", "a", ""], ["sub", "--folder", ""]])
def test_no_program_takes_an_empty_value(words, capsys):
    """`-o "$UNSET"` would write into the working directory, and `--name "$UNSET"` be as if it had been left out."""
    parser = argument_parser("About.")
    parser.add_argument("--name")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--several", nargs="+", default=[])
    command = parser.add_subparsers().add_parser("sub")
    command.add_argument("--folder", type=Path)
    assert parser.parse_args(["--name", "a", "sub", "--folder", "b/c"]).folder == Path("b/c")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert (end.value.code, ": an empty value\n" in capsys.readouterr().err) == (2, True)
