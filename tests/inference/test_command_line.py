from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mrda_arch import MLN, MRDANet
from mrda_data.sources import BundledSource
from mrda_inference import command_line
from mrda_inference.command_line import automatic_tile, upscale_files
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize

ROOT = Path(__file__).resolve().parents[2]
TOY = {"num_feat": 6, "num_block": 1, "den_feat": 4, "global_residual": True}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Working directory with two photographs and the weights of a toy network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save("photos/a.png")
    Image.fromarray(rng.integers(0, 256, (8, 10), dtype=np.uint8)).save("photos/sub/b.png")
    save_file(MRDANet(**TOY).state_dict(), "toy.safetensors")
    return tmp_path


def upscaled(*arguments):
    return upscale_files(["--weights", "toy.safetensors", "--device", "cpu", *arguments])


def outputs(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def test_a_folder_is_upscaled_with_its_sub_folders(folder, capsys):
    assert upscaled("-i", "photos", "-o", "out") == 0
    assert outputs("out") == ["a.png", "sub/b.png"]
    with Image.open("out/a.png") as a, Image.open("out/sub/b.png") as b:
        assert (a.size, a.mode) == ((36, 48), "RGB")
        assert (b.size, b.mode) == ((40, 32), "L")
    assert "2 upscaled, 0 left as they were, 0 failed: out" in capsys.readouterr().out


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
    assert "out/a.png: exists, left as it is; --overwrite replaces it" in captured.err
    assert "1 upscaled, 1 left as they were, 0 failed" in captured.out
    assert upscaled("-i", "photos", "-o", "out", "--overwrite") == 0
    assert Path("out/a.png").read_bytes() != b"mine"


def test_one_bad_file_does_not_stop_a_folder_and_the_exit_code_says_so(folder, capsys):
    Path("photos/0_bad.png").write_text("no image")
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert outputs("out") == ["a.png", "sub/b.png"]
    captured = capsys.readouterr()
    assert "error: photos/0_bad.png: cannot be decoded" in captured.err
    assert "2 upscaled, 0 left as they were, 1 failed" in captured.out


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
    assert "2 upscaled, 0 left as they were, 1 failed" in captured.out
    assert upscaled("-i", str(bad), "-o", "renamed.png") == 0


def test_two_inputs_of_one_output_are_told(folder, capsys):
    Image.open("photos/a.png").save("photos/a.jpg")
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert "photos/a.png: out/a.png is already that of photos/a.jpg" in capsys.readouterr().err


def test_an_input_is_never_overwritten(folder, capsys):
    before = Path("photos/a.png").read_bytes()
    assert upscaled("-i", "photos/a.png", "-o", "photos", "--overwrite") == 1
    assert "its output would replace it" in capsys.readouterr().err
    assert Path("photos/a.png").read_bytes() == before


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

    monkeypatch.setattr(command_line, "upscale", refuse)
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert "photos/a.png: out of memory; choose a smaller --tile" in capsys.readouterr().err


def test_an_output_that_is_not_finite_is_not_written(folder, capsys, monkeypatch):
    monkeypatch.setattr(command_line, "upscale", lambda lq, *a, **k: torch.full((1, 3, 48, 36), torch.nan))
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
        (["-i", "photos", "-o", "out", "--tile", "32"], "--tile 32: must be larger than --overlap, 32"),
        (["-i", "photos", "-o", "out", "--overlap", "-1"], "--overlap -1: must be at least 0"),
        (["-i", "photos", "-o", "out", "--device", "abacus"], "--device abacus: cannot be used"),
        (["-i", "photos", "-o", "out", "--dtype", "float16"], "--dtype float16: takes a GPU"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_written(folder, arguments, message):
    with pytest.raises(UserError, match=message) as info:
        upscaled(*arguments)
    assert "\n" not in str(info.value)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (MLN(num_feat=4), "weights of MLN; upscaling takes those of a student"),
        (MRDANet(**TOY, den_in_ch=5), "weights of a teacher"),
        (MRDANet(**TOY, num_in_ch=1, num_out_ch=1, den_in_ch=1), "weights for 1 channels"),
    ],
)
def test_other_weights_than_a_students_are_refused(folder, net, message):
    save_file(net.state_dict(), "other.safetensors")
    with pytest.raises(UserError, match=rf"other\.safetensors: {message}"):
        upscale_files(["-i", "photos", "-o", "out", "--weights", "other.safetensors"])


def test_tiles_come_when_memory_is_short(monkeypatch):
    net = MRDANet(num_feat=48, num_block=1, den_feat=4, upsampler="pixelshuffledirect")
    cpu = torch.device("cpu")
    monkeypatch.setattr(command_line, "_free_memory", lambda device: 2**40)
    assert automatic_tile(net, (500, 500), cpu, 32) is None
    side = automatic_tile(net, (3000, 4000), cpu, 32)
    assert 512 < side < 1024
    monkeypatch.setattr(command_line, "_free_memory", lambda device: 2**28)
    assert 96 <= automatic_tile(net, (500, 500), cpu, 32) < side
    monkeypatch.setattr(command_line, "_free_memory", lambda device: 0)
    assert automatic_tile(net, (500, 500), cpu, 32) == 96


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
