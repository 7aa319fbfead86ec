"""Where a run writes: an option file may name any folder, and what is there stays."""

from __future__ import annotations

import pytest
from PIL import Image

from mrda_utils.errors import UserError
from tests.model.conftest import stage_options, train
from tests.model.test_test_routes import SET, run, weights  # noqa: F401  (fixtures)

BICUBIC = {**SET, "protocol": "bicubic", "dataroot_gt": "bundled:test", "max_images": 1, "max_side": 48}


def test_a_training_moves_no_folder_that_is_none_of_its_runs(tmp_path):
    opt = stage_options("mln_bicubic", tmp_path, path__experiments_root=str(tmp_path), name="Documents")
    (tmp_path / "Documents").mkdir()
    (tmp_path / "Documents/letter.txt").write_text("Dear")
    with pytest.raises(UserError, match=r"Documents contains other things than a training; choose another name"):
        train(opt)
    assert (tmp_path / "Documents/letter.txt").read_text() == "Dear"
    assert not list(tmp_path.glob("Documents_archived*"))


def test_what_a_killed_training_began_to_write_is_no_folder_of_others(tmp_path):
    opt = stage_options("mln_bicubic", tmp_path, path__experiments_root=str(tmp_path))
    folder = tmp_path / opt["name"]
    folder.mkdir()
    (folder / f".{opt['name']}.yml.123.tmp").write_text("name: ")
    train(opt, "--auto_resume")
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_test_overwrites_no_folder_that_is_none_of_its_reports(run, tmp_path):  # noqa: F811
    folder = tmp_path / "results/thesis"
    (folder / "panels").mkdir(parents=True)
    (folder / "report.md").write_text("mine")
    (folder / "panels/mine.png").touch()
    with pytest.raises(UserError, match=r"thesis contains other things than a test; choose another name"):
        run("thesis", {"test": BICUBIC})
    assert (folder / "report.md").read_text() == "mine"
    assert (folder / "panels/mine.png").exists()


def test_a_test_replaces_its_own_report(run):  # noqa: F811
    first, second = (run("x", {"test": BICUBIC}) for _ in range(2))
    assert first[1] == second[1]


def test_pictures_of_images_with_long_names_are_kept(run, tmp_path):  # noqa: F811
    name = "/".join(["a" * 120, "b" * 120, "c d.png"])
    (tmp_path / "hr" / name).parent.mkdir(parents=True)
    Image.new("RGB", (48, 48), "teal").save(tmp_path / "hr" / name)
    report, rows, _ = run("x", {"test": {**BICUBIC, "dataroot_gt": str(tmp_path / "hr")}})
    assert rows[1][1] == name
    picture = next((tmp_path / "results/x/panels/X").iterdir())
    assert f"panels/X/{picture.name})" in report


def test_a_picture_whose_name_has_a_space_is_shown(run, tmp_path):  # noqa: F811
    (tmp_path / "hr").mkdir()
    Image.new("RGB", (48, 48), "teal").save(tmp_path / "hr/c d.png")
    report, _, _ = run("x", {"test": {**BICUBIC, "dataroot_gt": str(tmp_path / "hr")}})
    assert "(panels/X/c%20d_bicubic.png)" in report
