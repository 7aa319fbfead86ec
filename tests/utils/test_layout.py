"""The rooms of the house: imports go from a floor to lower ones alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = [  # from the top; entry points (train.py, scripts/, benchmarks/ ...) stand above them
    {"mrda_pipeline"},
    {"mrda_inference"},
    {"mrda_model"},
    {"mrda_options"},
    {"mrda_eval"},
    {"mrda_arch", "mrda_data", "mrda_loss", "mrda_metric"},
    {"mrda_utils"},
]
ROOMS = sorted(set().union(*FLOORS))
ENTRY_POINTS = [*ROOT.glob("*.py"), *ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")]


def imported(path):
    """Packages of this project that a file imports, registration imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name for name in names if name.startswith("mrda_"))


def test_every_package_is_a_room():
    assert sorted(path.parent.name for path in ROOT.glob("mrda_*/__init__.py")) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_lower_floors_alone(room):
    floor = next(n for n, rooms in enumerate(FLOORS) if room in rooms)
    allowed = {room}.union(*FLOORS[floor + 1 :])
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path


def test_nothing_imports_an_entry_point():
    stems = {path.stem for path in ENTRY_POINTS}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert not {name.split(".")[0] for name in imported(path)} & stems


def test_the_page_imports_nothing_from_the_command_line():
    files = list((ROOT / "mrda_inference/web").glob("*.py"))
    assert files
    for path in files:
        assert not {"mrda_inference.command_line", "mrda_inference.batch"} & set(imported(path))


def test_a_stage_imports_no_other_stage():
    stages = {"mln_bicubic_model", "mln_meta_model", "teacher_model", "student_model"}
    for stage in stages:
        names = {name.split(".")[-1] for name in imported(ROOT / f"mrda_model/{stage}.py")}
        assert not names & stages


def test_only_tests_are_named_like_tests():
    named = [path.relative_to(ROOT) for path in ROOT.rglob("test_*.py")]
    own = [path for path in named if not path.parts[0].startswith(".venv")]  # an environment may lie in the checkout
    assert own
    assert all(path.parts[0] == "tests" for path in own)


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_a_room_can_be_entered_first(room):
    """Each package is whole when it is the first one that a process imports."""
    assert subprocess.run([sys.executable, "-c", f"import {room}"], cwd=ROOT, timeout=120).returncode == 0


def test_option_files_are_read_in_a_bare_process():
    code = "from mrda_options import read_options; read_options('options/train_student_x4.yml', True, [])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0
