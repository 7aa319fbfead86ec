from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrda_data.images import read_rgb8
from mrda_data.lmdb_source import LmdbSource
from mrda_data.sources import FolderSource
from mrda_data.sub_images import MANIFEST, Sizes, starts
from mrda_utils.errors import UserError
from scripts import prepare_data

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--crop_size", "32", "--step", "16", "--workers", "2")


def save(path, height=70, width=50, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, height, width])
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "HR/a.png")
    save(tmp_path / "HR/b.v2.jpg", 40, 90)
    save(tmp_path / "HR/sub/c.png", 20, 33)
    return tmp_path / "HR"


def prepare(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
    prepare_data.main()


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


@pytest.mark.parametrize("length", [1, 31, 32, 33, 47, 48, 49, 64, 100, 479, 480, 481])
@pytest.mark.parametrize(("crop", "step"), [(32, 16), (32, 32), (48, 7)])
def test_sub_images_cover_the_side_and_end_at_the_border(length, crop, step):
    found = starts(length, Sizes(crop, step, 0))
    covered = np.zeros(length, int)
    for start in found:
        assert 0 <= start <= max(0, length - crop)
        covered[start : start + crop] += 1
    assert covered.all()
    assert all(b - a <= step for a, b in pairwise(found))
    assert found == sorted(set(found))


def test_a_narrow_border_can_be_left_out():
    assert starts(70, Sizes(32, 16, 0)) == [0, 16, 32, 38]
    assert starts(70, Sizes(32, 16, 6)) == [0, 16, 32]
    assert starts(70, Sizes(32, 16, 5)) == [0, 16, 32, 38]


def test_sub_images_are_the_pixels_that_training_reads(folder, tmp_path, monkeypatch):
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    expected = {}
    for name, tops, lefts in (
        ("a.png", (0, 16, 32, 38), (0, 16, 18)),
        ("b.v2.jpg", (0, 8), (0, 16, 32, 48, 58)),
        ("sub/c.png", (0,), (0, 1)),
    ):
        image = read_rgb8(folder / name)
        parts = [image[top : top + 32, left : left + 32] for top in tops for left in lefts]
        expected.update({f"{os.path.splitext(name)[0]}_s{i:03d}.png": part for i, part in enumerate(parts, 1)})
    assert set(FolderSource(tmp_path / "out").names) == set(expected)
    for name, part in expected.items():
        np.testing.assert_array_equal(read_rgb8(tmp_path / "out" / name), part)


def test_several_folders_are_merged(folder, tmp_path, monkeypatch):
    save(tmp_path / "more/d.png", 32, 32)
    prepare(monkeypatch, "-i", folder, tmp_path / "more", folder, "-o", tmp_path / "out", *SMALL)
    assert len(content(tmp_path / "out")) == 12 + 10 + 2 + 1
    assert (tmp_path / "out/d_s001.png").is_file()


def test_equal_names_in_two_folders_are_refused_before_anything_is_written(folder, tmp_path, monkeypatch):
    save(tmp_path / "more/a.jpg")
    with pytest.raises(UserError) as caught:
        prepare(monkeypatch, "-i", folder, tmp_path / "more", "-o", tmp_path / "out", *SMALL)
    assert str(folder / "a.png") in str(caught.value)
    assert str(tmp_path / "more/a.jpg") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_equal_names_in_a_later_run_are_refused(folder, tmp_path, monkeypatch):
    save(tmp_path / "more/a.png", seed=1)
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    before = content(tmp_path / "out")
    with pytest.raises(UserError, match="would have sub-images of one name"):
        prepare(monkeypatch, "-i", tmp_path / "more", "-o", tmp_path / "out", *SMALL)
    assert content(tmp_path / "out") == before


def test_a_second_run_does_only_what_is_missing(folder, tmp_path, monkeypatch):
    command = ("-i", folder, "-o", tmp_path / "out", *SMALL)
    prepare(monkeypatch, *command)
    first, stamps = content(tmp_path / "out"), times(tmp_path / "out")
    prepare(monkeypatch, *command)
    assert times(tmp_path / "out") == stamps
    (tmp_path / "out/a_s004.png").unlink()  # lost
    save(folder / "sub/c.png", 32, 32, seed=1)  # changed: one sub-image instead of two
    save(folder / "e.png", 32, 32)  # new
    prepare(monkeypatch, *command)
    found, now = content(tmp_path / "out"), times(tmp_path / "out")
    assert set(found) == set(first) - {"sub/c_s002.png"} | {"e_s001.png"}
    assert all(found[name] == first[name] for name in first if not name.startswith("sub"))
    np.testing.assert_array_equal(read_rgb8(tmp_path / "out/sub/c_s001.png"), read_rgb8(folder / "sub/c.png"))
    assert all(now[path] == stamp for path, stamp in stamps.items() if path.name.startswith("b"))


def test_moved_photographs_are_not_cut_again(folder, tmp_path, monkeypatch):
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    stamps = times(tmp_path / "out")
    folder.rename(tmp_path / "elsewhere")
    prepare(monkeypatch, "-i", tmp_path / "elsewhere", "-o", tmp_path / "out", *SMALL)
    assert times(tmp_path / "out") == stamps


def test_images_gone_from_the_input_are_told(folder, tmp_path, monkeypatch, capsys):
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    (folder / "a.png").unlink()
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    assert "also contains sub-images of 1 images not in -i, such as a" in capsys.readouterr().out


@pytest.mark.parametrize("stop_after", [0, 1, 5, 14])
def test_an_interrupted_run_leaves_whole_files_and_can_be_gone_on_with(folder, tmp_path, monkeypatch, stop_after):
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "whole", *SMALL)
    written = []

    def fail(source, target):
        written.append(target)
        if len(written) > stop_after + 1:  # the first is the manifest
            raise OSError(28, "No space left on device")
        rename(source, target)

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match=r"out/.*: cannot be written \(No space left on device\)"):
        prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    monkeypatch.setattr(Path, "replace", rename)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    whole = content(tmp_path / "whole")
    assert len(content(tmp_path / "out")) == stop_after
    assert content(tmp_path / "out").items() <= whole.items()
    with (tmp_path / "out" / MANIFEST).open("a") as manifest:
        manifest.write('{"stem": "a", "sou')  # as a kill would leave it
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    assert content(tmp_path / "out") == whole
    stamps = times(tmp_path / "out")
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    assert times(tmp_path / "out") == stamps


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts/prepare_data.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(condition, process, seconds=100):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kill_and_ctrl_c_leave_whole_files_and_the_same_command_goes_on(tmp_path, monkeypatch):
    for i in range(12):  # many: on a busy machine they must not all be done before the signal comes
        save(tmp_path / f"HR/{i}.png", 300, 300, seed=i)
    sizes = ("--crop_size", "100", "--step", "20")  # 121 of them from each image
    prepare(monkeypatch, "-i", tmp_path / "HR", "-o", tmp_path / "whole", *sizes)
    whole, manifest = content(tmp_path / "whole"), tmp_path / "out" / MANIFEST
    for stop, complete in ((signal.SIGKILL, 1), (signal.SIGINT, 2)):
        process = start("-i", tmp_path / "HR", "-o", tmp_path / "out", *sizes, "--workers", "1")
        wait_until(lambda n=complete: manifest.exists() and manifest.read_text().count("\n") > n, process)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL)
        if stop == signal.SIGINT:
            assert errors.strip() == "interrupted; the same command goes on from here"
        partly = content(tmp_path / "out")
        assert 121 * complete <= len(partly) < len(whole)
        assert partly.items() <= whole.items()
    prepare(monkeypatch, "-i", tmp_path / "HR", "-o", tmp_path / "out", *sizes)
    assert content(tmp_path / "out") == whole
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_corrupt_images_are_named_and_the_rest_is_done(folder, tmp_path, monkeypatch, capsys):
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:500])
    with pytest.raises(UserError, match="1 of 4 images cannot be used; they are named above"):
        prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", "--lmdb", *SMALL)
    assert f"{folder / 'bad.png'}: cannot be decoded" in capsys.readouterr().out
    assert len(content(tmp_path / "out")) == 24
    assert len(LmdbSource(tmp_path / "out.lmdb").names) == 24


def test_the_lmdb_holds_the_sub_images_and_is_made_once(folder, tmp_path, monkeypatch):
    command = ("-i", folder, "-o", tmp_path / "out", "--lmdb", *SMALL)
    prepare(monkeypatch, *command)
    files, packed = FolderSource(tmp_path / "out"), LmdbSource(tmp_path / "out.lmdb")
    assert files.names == packed.names
    for i in range(len(files.names)):
        np.testing.assert_array_equal(files.read(i), packed.read(i))
    stamp = (tmp_path / "out.lmdb/data.mdb").stat().st_mtime_ns
    prepare(monkeypatch, *command)
    assert (tmp_path / "out.lmdb/data.mdb").stat().st_mtime_ns == stamp


def test_without_an_output_the_images_are_packed_as_they_are(folder, tmp_path, monkeypatch):
    (folder / "SHA256SUMS").write_text("of an LR set")
    prepare(monkeypatch, "-i", folder, "--lmdb")
    files, packed = FolderSource(folder), LmdbSource(tmp_path / "HR.lmdb")
    assert files.names == packed.names == ["a.png", "b.v2.jpg", "sub/c.png"]
    for i in range(len(files.names)):
        assert files.encoded(i).tobytes() == packed.encoded(i).tobytes()
    assert (tmp_path / "HR.lmdb/SHA256SUMS").read_text() == "of an LR set"
    (tmp_path / "HR.lmdb/SHA256SUMS").unlink()  # as where a run was killed
    prepare(monkeypatch, "-i", folder, "--lmdb")
    assert (tmp_path / "HR.lmdb/SHA256SUMS").read_text() == "of an LR set"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["HR", "HR.lmdb"]


@pytest.mark.parametrize("change", ["new", "changed"])
def test_an_outdated_lmdb_is_not_overwritten(folder, tmp_path, monkeypatch, change):
    command = ("-i", folder, "-o", tmp_path / "out", "--lmdb", *SMALL)
    prepare(monkeypatch, *command)
    save(folder / ("e.png" if change == "new" else "a.png"), seed=2)
    with pytest.raises(UserError, match=r"out\.lmdb: was made from other images than .*out contains now; delete it"):
        prepare(monkeypatch, *command)


def test_verify_names_every_offender_and_writes_nothing(folder, tmp_path, monkeypatch, capsys):
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", "--lmdb", *SMALL)
    capsys.readouterr()
    for name in ("bad.png", "sub/empty.jpg"):
        (folder / name).write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="2 of 29 images cannot be used"):
        prepare(monkeypatch, "-i", folder, tmp_path / "out.lmdb", "-o", tmp_path / "nowhere", "--verify")
    shown = capsys.readouterr().out
    assert f"{folder / 'bad.png'}: cannot be decoded" in shown
    assert f"{folder / 'sub/empty.jpg'}: cannot be decoded" in shown
    assert "27 images can be used, the shortest side is 20 pixels" in shown
    assert sorted(tmp_path.rglob("*")) == before


MISTAKES = {
    "no output": ([], "-o: missing"),
    "step": (["-o", "{0}/o", "--step", "600"], "--step 600: it takes 1 to --crop_size, 480"),
    "crop_size": (["-o", "{0}/o", "--crop_size", "0"], "--step 240: it takes 1 to --crop_size, 0"),
    "thresh_size": (["-o", "{0}/o", "--thresh_size", "-1"], "--thresh_size -1"),
    "workers": (["-o", "{0}/o", "--workers", "0"], "--workers 0"),
    "lmdb": (["-o", "{0}/o.lmdb"], "name the folder of the sub-images"),
    "lmdb of nothing": (["-i", "{0}/empty", "--lmdb"], "empty: no image in it"),
    "inside": (["-o", "{0}/HR/sub_images"], "is inside the other"),
    "around": (["-o", "{0}"], "contains files that this script has not made"),
    "no folder": (["-i", "{0}/nowhere", "-o", "{0}/o"], "nowhere: no such folder"),
    "no image": (["-i", "{0}/empty", "-o", "{0}/o"], "empty: no image in it"),
    "foreign": (["-o", "{0}/foreign"], "contains files that this script has not made"),
    "a file": (["-o", "{0}/foreign/a.png"], "a.png: cannot go on"),
    "verify nothing": (["-i", "{0}/nowhere.lmdb", "--verify"], "nowhere.lmdb does not exist"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(folder, tmp_path, monkeypatch, mistake):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "foreign/a.png")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        prepare(monkeypatch, "-i", folder, *(argument.format(tmp_path) for argument in arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_other_sizes_in_the_same_folder_are_refused(folder, tmp_path, monkeypatch):
    prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out", *SMALL)
    with pytest.raises(UserError, match="was made by --crop_size 32 --step 16 --thresh_size 0; name a new folder"):
        prepare(monkeypatch, "-i", folder, "-o", tmp_path / "out")


def test_the_command_ends_in_code_2_without_traceback(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", "-i", str(folder)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "scripts/prepare_data.py"), run_name="__main__")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: -o: missing, name the folder of the sub-images (or --lmdb, --verify)\n"
