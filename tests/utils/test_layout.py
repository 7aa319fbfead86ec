"""Arrows between the packages go one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "mrda_utils": set(),
    "mrda_arch": {"mrda_utils"},
    "mrda_loss": {"mrda_utils"},
    "mrda_metric": {"mrda_utils"},
    "mrda_data": {"mrda_utils"},
    "mrda_eval": {"mrda_utils", "mrda_data", "mrda_metric"},
    "mrda_inference": {"mrda_utils", "mrda_arch", "mrda_data", "mrda_eval"},
    "mrda_model": {"mrda_utils", "mrda_arch", "mrda_loss", "mrda_metric", "mrda_data", "mrda_eval"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = {name.split(".")[0] for name in imported(path) if name.startswith("mrda_")}
        assert ours <= MAY_IMPORT[package] | {package}, path


def test_a_stage_imports_no_other_stage():
    stages = {"mln_bicubic_model", "mln_meta_model", "teacher_model", "student_model"}
    for stage in stages:
        names = {name.split(".")[-1] for name in imported(ROOT / f"mrda_model/{stage}.py")}
        assert not names & stages
