from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from safetensors.torch import load_file

from mrda_arch import MRDANet
from mrda_data.sources import BundledSource
from mrda_inference import batch, photograph, upscaler
from mrda_inference.command_line import upscale_files
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize
from tests.inference.conftest import outputs, upscaled

ROOT = Path(__file__).resolve().parents[2]


def test_a_folder_is_upscaled_with_its_sub_folders(folder, capsys):
    assert upscaled("-i", "photos", "-o", "out") == 0
    assert outputs("out") == ["a.png", "sub/b.png"]
    with Image.open("out/a.png") as a, Image.open("out/sub/b.png") as b:
        assert (a.size, a.mode) == ((36, 48), "RGB")
        assert (b.size, b.mode) == ((40, 32), "L")
    assert "2 upscaled, 0 skipped, 0 failed: out" in capsys.readouterr().out


def test_the_pixels_are_those_of_the_network(folder):
    upscaled("-i", "photos/a.png", "-o", "out/x.png")
    net = MRDANet.from_state_dict(load_file("toy.safetensors"))
    lq = torch.from_numpy(np.array(Image.open("photos/a.png"))).permute(2, 0, 1)[None] / 255
    expected = (net(lq).detach().clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(Image.open("out/x.png")).astype(int) - expected).max() <= 1


def test_alpha_is_upscaled_bicubically_and_stays_exact_where_it_is_constant(folder):
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    colour = np.full((16, 16, 3), 90, np.uint8)
    Image.fromarray(np.dstack([colour, alpha])).save("rgba.png")
    assert upscaled("-i", "rgba.png", "-o", "out") == 0
    enlarged = np.asarray(Image.open("out/rgba.png"))[..., 3]
    expected = imresize(torch.from_numpy(alpha)[None].double(), 4)[0].clamp(0, 255).round().numpy()
    np.testing.assert_array_equal(enlarged, expected)
    assert set(np.unique(enlarged[:, :20])) == {0}
    assert set(np.unique(enlarged[:, 44:])) == {255}


def test_sixteen_bits_stay_sixteen_bits(folder):
    cv2.imwrite("deep.png", np.random.default_rng(0).integers(0, 65536, (6, 7, 3), dtype=np.uint16))
    assert upscaled("-i", "deep.png", "-o", "out") == 0
    enlarged = cv2.imread("out/deep.png", cv2.IMREAD_UNCHANGED)
    assert enlarged.dtype == np.uint16
    assert len(np.unique(enlarged % 257)) > 200  # not 8 bits in disguise


def test_patterns_and_several_inputs(folder):
    assert upscaled("-i", "photos/**/*.png", "photos/a.png", "-o", "out", "--format", "jpg") == 0
    assert outputs("out") == ["a.jpg", "b.jpg"]


def test_outputs_are_not_overwritten_unless_asked(folder, capsys):
    Path("out/sub").mkdir(parents=True)
    Path("out/a.png").write_bytes(b"mine")
    assert upscaled("-i", "photos", "-o", "out") == 0
    assert Path("out/a.png").read_bytes() == b"mine"
    captured = capsys.readouterr()
    assert "skipped, since the output exists (--overwrite replaces it): out/a.png\n" in captured.err
    assert "1 upscaled, 1 skipped, 0 failed" in captured.out
    assert upscaled("-i", "photos", "-o", "out", "--overwrite") == 0
    assert Path("out/a.png").read_bytes() != b"mine"


def test_one_bad_file_does_not_stop_a_folder_and_the_exit_code_says_so(folder, capsys):
    Path("photos/0_bad.png").write_text("no image")
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert outputs("out") == ["a.png", "sub/b.png"]
    captured = capsys.readouterr()
    assert "error: photos/0_bad.png: cannot be decoded" in captured.err
    assert "2 upscaled, 0 skipped, 1 failed" in captured.out


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"Caf\xe9.jpg", r"Caf\udce9.jpg"), (b"x\ny.png", r"x\ny.png"), (b"\x1b[2J/z.png", r"\x1b[2J/z.png")],
)
def test_a_name_that_is_none_does_not_stop_a_folder_either(folder, capsys, name, shown):
    bad = Path("photos", os.fsdecode(name))
    bad.parent.mkdir(exist_ok=True)
    Image.open("photos/a.png").convert("RGB").save(bad)
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert outputs("out") == ["a.png", "sub/b.png"]
    captured = capsys.readouterr()
    assert f"error: 'photos/{shown}': control characters or no UTF-8 in the name; rename it\n" in captured.err
    assert "2 upscaled, 0 skipped, 1 failed" in captured.out
    assert upscaled("-i", str(bad), "-o", "renamed.png") == 0


def test_two_inputs_of_one_name_give_two_outputs(folder):
    Image.open("photos/a.png").save("photos/a.jpg")
    assert upscaled("-i", "photos", "-o", "out") == 0
    assert outputs("out") == ["a_jpg.png", "a_png.png", "sub/b.png"]


def test_two_inputs_of_one_output_are_told(folder, capsys):
    Image.open("photos/a.png").save("photos/sub/a.png")
    assert upscaled("-i", "photos/**/*.png", "-o", "out") == 1
    assert "photos/sub/a.png: out/a_png.png is already that of photos/a.png" in capsys.readouterr().err


def test_output_options_reach_the_pictures(folder):
    Image.new("RGBA", (10, 8), (0, 0, 0, 0)).save("photos/clear.png")
    options = ["--outscale", "2", "--format", "jpg", "--quality", "30", "--background", "#ff0000"]
    assert upscaled("-i", "photos", "-o", "out", *options) == 0
    with Image.open("out/a.jpg") as a, Image.open("out/clear.jpg") as clear:
        assert a.size == (18, 24)
        assert np.abs(np.asarray(clear).astype(int) - (255, 0, 0)).max() < 30
    with pytest.raises(SystemExit):
        upscaled("-i", "photos", "-o", "out", "--background", "whiteish")


def test_what_is_left_out_of_a_folder_is_said(folder, capsys):
    for name in ("b.gif", "c.txt", "._a.png", "d.jfif"):
        Path("photos", name).write_bytes(Path("photos/a.png").read_bytes())
    assert upscaled("-i", "photos", "-o", "out") == 0
    assert outputs("out") == ["a.png", "d.png", "sub/b.png"]
    assert "photos: left out: 1 .gif, 1 .txt\n" in capsys.readouterr().err


def test_a_picture_too_large_for_the_memory_gives_exit_code_2_and_the_others_are_made(folder, monkeypatch, capsys):
    Image.new("RGB", (64, 64)).save("photos/large.png")
    monkeypatch.setattr(photograph, "available_memory", lambda: 3_000_000)
    assert upscaled("-i", "photos", "-o", "out") == 2
    assert outputs("out") == ["a.png", "sub/b.png"]
    assert "photos/large.png: takes 0.0 GB of memory" in capsys.readouterr().err


def test_an_input_is_never_overwritten(folder, capsys):
    before = Path("photos/a.png").read_bytes()
    assert upscaled("-i", "photos/a.png", "-o", "photos", "--overwrite") == 1
    assert "its output would replace it" in capsys.readouterr().err
    assert Path("photos/a.png").read_bytes() == before


@pytest.mark.parametrize("existing", [[], ["--overwrite"]])
def test_no_input_is_overwritten_by_the_output_of_another_either(folder, capsys, existing):
    for name in ("a.jpg", "sub/a_jpg.png"):
        Image.open("photos/a.png").save(f"photos/{name}")
    before = Path("photos/sub/a_jpg.png").read_bytes()
    inputs = ["photos/a.jpg", "photos/a.png", "photos/sub/a_jpg.png"]
    assert upscaled("-i", *inputs, "-o", "photos/sub", *existing) == 1
    told = "error: photos/a.jpg: its output would replace the input photos/sub/a_jpg.png; choose another -o\n"
    assert told in capsys.readouterr().err
    assert Path("photos/sub/a_jpg.png").read_bytes() == before


def test_a_name_that_becomes_too_long_does_not_stop_a_folder(folder, capsys):
    for suffix in (".jpg", ".png"):
        Image.open("photos/a.png").save(f"photos/{'c' * 251}{suffix}")
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert outputs("out") == ["a.png", "sub/b.png"]
    captured = capsys.readouterr()
    assert captured.err.count("cannot be written (File name too long)") == 2
    assert "2 upscaled, 0 skipped, 2 failed" in captured.out


def test_a_link_to_itself_does_not_stop_a_folder(folder, capsys):
    Path("photos/x").symlink_to("x")
    assert upscaled("-i", "photos", "-o", "out") == 0
    assert outputs("out") == ["a.png", "sub/b.png"]
    assert "photos: left out: 1 unreachable\n" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out", "out.png", "out/deep", "out/deep/x.png"])
def test_a_link_that_leads_nowhere_is_no_output_folder(folder, output):
    link = Path(output).parts[0]
    Path(link).symlink_to(link)
    with pytest.raises(UserError, match=f"^-o {output}: cannot be used \\(Too many levels of symbolic links\\)"):
        upscaled("-i", "photos/a.png", "-o", output)
    Path(link).unlink()
    Path(link).symlink_to("missing")
    if output == "out.png":  # which is replaced, as any output is
        assert upscaled("-i", "photos/a.png", "-o", output) == 0
        return
    with pytest.raises(UserError, match=f"^-o out.*: {link} is a link to nothing; remove it"):
        upscaled("-i", "photos/a.png", "-o", output)


CLOSED = """
import os, sys
from mrda_inference.command_line import upscale_files
from mrda_utils.errors import UserError
os.chmod("closed", 0)
if os.geteuid() == 0:
    os.seteuid(65534)
for inputs, output in (
    ("closed/a.png", "out"),
    ("closed/*.png", "out"),
    ("closed", "out"),
    ("a.png", "closed/x"),
    ("a.png", "closed/x.png"),
    ("a.png", "closed"),
):
    try:
        upscale_files(["--weights", "toy.safetensors", "--device", "cpu", "-i", inputs, "-o", output])
    except UserError as error:
        print("told:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="closes no folders in this way")
def test_folders_that_may_not_be_entered_are_told_in_a_line(folder):
    Path("closed").mkdir()
    for name in ("a.png", "closed/a.png"):
        Image.new("RGB", (8, 8)).save(name)
    folder.chmod(0o777)
    Path("toy.safetensors").chmod(0o644)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CLOSED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("told: ")] == [
        "told: -i closed/a.png: cannot be used (Permission denied); name another",
        "told: -i closed/*.png: cannot be used (Permission denied); name another",
        "told: closed: cannot be listed (Permission denied)",
        "told: -o closed/x: cannot be used (Permission denied); name another",
        "told: -o closed/x.png: cannot be used (Permission denied); name another",
        "told: closed/a.png: cannot be written (Permission denied)",
    ]


def test_what_a_file_says_of_itself_does_not_steer_the_terminal(folder, capsys):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"\x1b[2J"
    Image.new("RGB", (8, 8)).save("profile.png", icc_profile=bytes(profile))
    Image.new("RGB", (8, 8)).save("\x1b[2J.png")
    upscaled("-i", "profile.png", "-o", "out")
    upscaled("-i", "\x1b[2J.png", "-o", "\x9b.png")
    told = capsys.readouterr()
    assert r"\x1b[2J" in told.err
    assert r"\x9b.png" in told.out
    assert not set("\x1b\x9b") & set(told.err + told.out)


@pytest.mark.parametrize(("inputs", "expected"), [("photos", "sub/b.png"), ("photos/**/*.png", "b.png")])
def test_outputs_inside_the_input_folder_are_no_inputs(folder, inputs, expected):
    assert upscaled("-i", inputs, "-o", "photos/x4") == 0
    assert upscaled("-i", inputs, "-o", "photos/x4", "--overwrite") == 0
    assert outputs("photos/x4") == ["a.png", expected]
    with Image.open("photos/x4/a.png") as image:
        assert image.size == (36, 48)


def test_what_is_named_or_alone_matches_is_an_input_wherever_it_lies(folder):
    Image.open("photos/a.png").save("photos/c.jpg")
    assert upscaled("-i", "photos/*.jpg", "-o", "photos") == 0
    assert upscaled("-i", "photos/c.png", "-o", "photos", "--format", "webp") == 0
    assert upscaled("-i", "photos/sub", "-o", "photos") == 0
    assert outputs("photos") == ["a.png", "b.png", "c.jpg", "c.png", "c.webp", "sub/b.png"]


def test_an_image_for_which_memory_is_short_is_passed_over(folder, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(batch, "restore_file", refuse)
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert "photos/a.png: out of memory; choose a smaller --tile" in capsys.readouterr().err


def test_an_output_that_is_not_finite_is_not_written(folder, capsys, monkeypatch):
    nothing = lambda net, *_: (net.den, lambda lq, idr: torch.full((1, 3, 48, 36), torch.nan))  # noqa: E731
    monkeypatch.setattr(upscaler, "network_functions", nothing)
    assert upscaled("-i", "photos/a.png", "-o", "out") == 1
    assert "a.png: the output is not finite" in capsys.readouterr().err
    assert not outputs("out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "nowhere", "-o", "out"], "-i nowhere: no such file or folder"),
        (["-i", "photos", "-o", "photos"], "-o photos: is the input folder"),
        (["-i", "photos", "-o", "toy.safetensors"], "-o toy.safetensors: name a folder"),
        (["-i", "photos", "-o", "out.png"], "-o out.png: name a folder or, for one input file"),
        (["-i", "photos/a.png", "-o", "out.tif"], "-o out.tif: name a folder"),
        (["-i", "photos/a.png", "-o", "out.gif"], "-o out.gif: name a folder or, for one input file, a file in .png"),
        (["-i", "photos/a.png", "-o", "out/a.PSD"], "-o out/a.PSD: name a folder or, for one input file"),
        (["-i", "photos/a.png", "-o", "/dev/null"], "-o /dev/null: name a folder or, for one input file"),
        (["-i", "photos/a.png", "-o", "pipe.png", "--overwrite"], "-o pipe.png: name a folder or, for one input file"),
        (["-i", "photos", "-o", "/dev/null"], "-o /dev/null: name a folder"),
        (["-i", "photos", "-o", "toy.safetensors/out"], "-o toy.safetensors/out: toy.safetensors is no folder"),
        (["-i", "photos/a.png", "-o", "/dev/null/out.png"], "-o /dev/null: /dev/null is no folder; name another"),
        (["-i", "photos", "-o", "out", "--tile", "32"], "--tile 32: must be larger than --overlap, 32"),
        (["-i", "photos", "-o", "out", "--overlap", "-1"], "--overlap -1: must be at least 0"),
        (["-i", "photos", "-o", "out", "--device", "abacus"], "--device abacus: cannot be used"),
        (["-i", "photos", "-o", "out", "--device", "meta"], "--device meta: cannot be used"),
        (["-i", "photos", "-o", "out", "--device", "hpu"], "--device hpu: cannot be used"),
        (["-i", "photos", "-o", "out", "--device", "xla"], "--device xla: cannot be used"),
        (["-i", "photos", "-o", "out", "--device", "cuda:99"], "--device cuda:99: cannot be used"),
        (["-i", "photos", "-o", "out", "--dtype", "float16"], "--dtype float16: takes a GPU"),
        (["-i", "photos", "-o", "out", "--quality", "90"], "--quality 90: png has none; leave it out, or choose jpg"),
        (["-i", "photos/a.png", "-o", "a.png", "--quality", "90"], "--quality 90: png has none"),
        (["-i", "photos/a.png", "-o", "a.png", "--format", "jpg"], "--format jpg: disagrees with -o a.png; leave"),
        (["-i", "photos/a.png", "-o", "a.JPEG", "--format", "png"], "--format png: disagrees with -o a.JPEG"),
        (["-i", "photos", "-o", "out", "--quality", "0", "--format", "jpg"], "--quality 0: must be 1 to 100"),
        (["-i", "photos", "-o", "out", "--outscale", "0"], "--outscale 0.0: must be above 0"),
        (["-i", "photos", "-o", "out", "--outscale", "2", "--width", "9"], "--outscale excludes --width"),
        (["-i", "/dev/zero", "-o", "out"], "-i /dev/zero: a pipe or device"),
        (["-i", "x" * 300, "-o", "out"], r"-i x+: cannot be used \(File name too long\)"),
        (["-i", "photos", "-o", "x" * 300], r"-o x+: cannot be used \(File name too long\)"),
        (["-i", "photos/a.png", "-o", "x" * 300 + ".png"], r"-o x+\.png: cannot be used \(File name too long\)"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_written(folder, arguments, message):
    os.mkfifo("pipe.png")
    before = outputs(".")
    with pytest.raises(UserError, match=message) as info:
        upscaled(*arguments)
    assert "\n" not in str(info.value)
    assert outputs(".") == before
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG", "folder.png", "folder"])
def test_the_format_of_a_file_may_be_said_twice_and_a_folder_has_any(folder, name):
    for existing in ("folder.png", "folder"):
        Path(existing).mkdir()
    assert upscaled("-i", "photos/a.png", "-o", name, "--format", "jpg", "--quality", "90") == 0
    made = Path(name, "a.jpg") if Path(name).is_dir() else Path(name)
    with Image.open(made) as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize("name", ["out", "out.v1", "photos_x4.d"])
def test_the_name_of_a_new_folder_may_have_a_dot(folder, name):
    assert upscaled("-i", "photos/a.png", "-o", name) == 0
    assert outputs(name) == ["a.png"]


@pytest.mark.parametrize("option", ["--weights", "-i", "-o"])
def test_an_empty_name_stands_for_nothing(folder, capsys, option):
    with pytest.raises(SystemExit) as end:
        upscale_files(["-i", "photos", "-o", "out", "--device", "cpu", option, ""])
    assert end.value.code == 2
    assert re.search(rf"error: argument {option}\S*: an empty value\n$", capsys.readouterr().err)
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_megapixel_takes_less_than_3_gigabytes(tmp_path):
    photograph = Image.fromarray(BundledSource("test").read(1)).resize((1152, 912), Image.Resampling.BICUBIC)
    photograph.save(tmp_path / "a.png")
    # what is measured comes from a small process, since its own peak would include that of the one that starts it
    measure = (
        "import subprocess, sys; from resource import RUSAGE_CHILDREN, getrusage; "
        "subprocess.run(sys.argv[1:], check=True); print(getrusage(RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, ROOT / "inference.py", "-i", "a.png", "-o", "out.png", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", measure, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (4 * 1152, 4 * 912)
    kibibytes = int(done.stdout.split()[-1])
    assert 2**18 < kibibytes < 3e9 / 1024


def test_the_script_runs_from_anywhere_and_says_what_is_wrong(folder):
    command = [sys.executable, ROOT / "inference.py", "-i", "photos", "-o", "out", "--weights"]
    Path("photos/0_bad.png").write_text("no image")
    done = subprocess.run([*command, "toy.safetensors"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command, "shipped:nothing"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: shipped:nothing: no such weights; known: ")
