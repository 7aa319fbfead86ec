from __future__ import annotations

import csv
import itertools
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mrda_arch import MLN
from mrda_data.degradation.classic import classic_degrade
from mrda_model.adaptation import Adaptation, adapt
from mrda_pipeline.figures import idr, rdam
from mrda_pipeline.figures.adaptation import trained_curves
from mrda_pipeline.figures.setting import read_setting
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize
from scripts import figures
from tests.model.conftest import ROOT, shrunk


@pytest.fixture
def draw(chain, tmp_path):
    """Function that draws a figure of the chain's networks on two images; the folder of what it writes."""
    opt = shrunk(ROOT / "options/demo/test_gaussian8_x4.yml")
    opt["path"] = {k: v.replace("experiments/", f"{chain}/") for k, v in opt["path"].items()}
    hr = tmp_path / "hr"
    hr.mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(hr / f"{seed}.png")

    def run(figure, *arguments, drop=()):
        kept = {key: value for key, value in opt.items() if key not in drop}
        kept["path"] = {k: v for k, v in opt["path"].items() if k.replace("pretrain_", "") not in drop}
        (tmp_path / "o.yml").write_text(yaml.safe_dump(kept))
        common = ("-opt", str(tmp_path / "o.yml"), "--images", str(hr), "-o", str(tmp_path / "out"))
        figures.main([figure, *common, *map(str, arguments)])
        return tmp_path / "out"

    run.opt, run.hr = opt, hr
    return run


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_png(path):
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 100


def test_every_crop_under_every_degradation_has_a_place_for_each_network(draw, chain, tmp_path):
    weights = tmp_path / "baseline.pth"
    student = torch.load(chain / "demo_student_x4/models/net_g_latest.pth", weights_only=True)
    torch.save({"params": student["params"]}, weights)
    out = draw("idr", "--crop", 20, "--max_crops", 6, "--baseline", weights)
    points, accuracies = read_csv(out / "idr.csv"), read_csv(out / "idr_accuracy.csv")
    networks = ["no degradation learning", "teacher with MLN", "student"]
    for figure, classes in {"widths": 4, "kernels": 9, "noise": 3}.items():
        assert is_png(out / f"idr_{figure}.png")
        assert (out / f"idr_{figure}.pdf").read_bytes().startswith(b"%PDF")
        for network in networks:
            own = [p for p in points if (p["figure"], p["network"]) == (figure, network)]
            assert len({(p["degradation"], p["crop"]) for p in own}) == len(own) == 6 * classes
            (accuracy,) = [a for a in accuracies if (a["figure"], a["network"]) == (figure, network)]
            assert float(accuracy["chance"]) == pytest.approx(1 / classes)
            assert 0 <= float(accuracy["accuracy"]) <= 1


def test_crops_do_not_overlap_and_are_spread_over_the_images(tmp_path):
    for number, value in enumerate((10, 200)):
        image = np.full((50, 64, 3), value, np.uint8)
        image[::16, ::16] = 255  # top left corner of each crop
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    found = idr.crops(str(tmp_path), 16, 100)
    assert found.shape == (2 * 3 * 4, 3, 16, 16)
    assert (found[:, :, 0, 0] == 1).all()
    assert (found == 1).sum() == 24 * 3
    half = idr.crops(str(tmp_path), 16, 12)
    assert [(half[:, 0, 1, 1] * 255).round().eq(value).sum().item() for value in (10, 200)] == [6, 6]
    with pytest.raises(UserError, match="2 crops of 40x40, at least 5"):
        idr.crops(str(tmp_path), 40, 100)


def test_the_teachers_representation_is_den_of_the_adapted_features(draw, chain):
    from mrda_options.command_line import parse

    draw("rdam")  # writes the option file
    arguments = type("A", (), {"opt": str(draw.hr.parent / "o.yml"), "images": str(draw.hr), "output": None})
    setting = read_setting(ROOT, arguments)
    opt = parse(ROOT, ["-opt", arguments.opt], is_train=False).opt
    torch.manual_seed(0)
    lq, gt = torch.rand(1, 3, 8, 9), torch.rand(1, 3, 32, 36)
    teacher, mln = setting.networks.teacher, setting.networks.mln
    fast = adapt(mln, lq, gt, Adaptation(**opt["adaptation"]))
    body = torch.func.functional_call(mln.body, fast, (lq,))
    sources = idr.idr_sources(setting.networks)
    assert list(sources) == ["teacher with MLN", "student"]
    torch.testing.assert_close(sources["teacher with MLN"](lq, gt), teacher.den(body), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sources["student"](lq, gt), setting.networks.student(lq, return_idr=True)[1])


def test_neighbours_tell_separate_clusters_and_guess_otherwise():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(np.arange(4), 50), np.tile(np.arange(50), 4)
    noise = rng.normal(size=(200, 8))
    assert idr.neighbour_accuracy(noise + 20 * labels[:, None], labels, groups) == 1
    assert idr.neighbour_accuracy(noise, labels, groups) == pytest.approx(0.25, abs=0.1)
    # content alone, equal for all degradations of a crop, tells nothing: the crop's other degradations are held out
    content = np.tile(rng.normal(size=(50, 8)), (4, 1)) + 1e-3 * noise
    mixed = rng.permutation(200)  # else contiguous folds would hold them out as well
    assert idr.neighbour_accuracy(content[mixed], labels[mixed], groups[mixed]) == pytest.approx(0.25, abs=0.1)


def test_maps_are_drawn_and_compared_with_texture(draw):
    out = draw("rdam", "--width", 1.5)
    assert is_png(out / "rdam.png")
    rows = read_csv(out / "rdam.csv")
    assert [(row["image"], row["rda_conv"]) for row in rows] == [(f"{i}.png", str(k)) for i in range(2) for k in (1, 2)]
    assert all(0 < float(row["mean"]) < 1 and -1 <= float(row["texture_correlation"]) <= 1 for row in rows)


def test_texture_is_the_deviation_of_luma_around_a_pixel():
    lq = torch.rand(1, 3, 9, 12)
    luma = (lq[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).numpy().astype(np.float64)
    assert rdam.texture(lq)[4, 5] == pytest.approx(luma[2:7, 3:8].std(), abs=1e-6)


def test_curves_start_without_adaptation_and_have_a_point_a_step(draw, chain):
    bicubic = chain / "demo_mln_bicubic_x4/models/net_g_latest.pth"
    out = draw("adaptation", "--steps", 0, 2, "--max_side", 40, "--mln", f"bicubic={bicubic}")
    assert is_png(out / "adaptation.png")
    found = {(row["method"], int(row["steps"])): float(row["psnr"]) for row in read_csv(out / "adaptation.csv")}
    assert found.keys() == {(m, n) for m in ("MLN", "bicubic", "teacher") for n in (0, 2)} | {("student", 0)}
    assert found["MLN", 2] > found["MLN", 0]
    assert found["bicubic", 2] > found["bicubic", 0]

    mln = MLN(num_feat=4).requires_grad_(False)
    mln.load_state_dict(torch.load(bicubic, weights_only=True)["params_ema"])
    values = []
    for name, sigma in itertools.product(("0.png", "1.png"), np.linspace(1.8, 3.2, 8)):
        image = torch.from_numpy(np.array(Image.open(draw.hr / name))).permute(2, 0, 1)[None].float() / 255
        gt = image[..., 10:50, 2:42]
        task = {"sigma_x": sigma, "sigma_y": sigma, "theta": 0.0, "noise_sigma_255": 0.0}
        lq = classic_degrade(gt, task, 4, 21, torch.Generator())
        weights = adapt(mln, lq, gt, Adaptation(draw.opt["adaptation"]["inner_lrs"][:2]))
        sr = mln.upscaler(torch.func.functional_call(mln.body, weights, (lq,))) + imresize(lq, 4)
        y = [(x.clamp(0, 1) * 255).round()[0, :, 4:-4, 4:-4] / 255 for x in (sr.detach(), gt)]
        y = [(x * torch.tensor([65.481, 128.553, 24.966])[:, None, None]).sum(0) for x in y]
        values.append(10 * np.log10(255**2 / (y[0] - y[1]).square().mean().item()))
    assert found["bicubic", 2] == pytest.approx(np.mean(values), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "drop", "message"),
    [
        (("rdam", "--width", 0), (), "--width 0.0: must be positive"),
        (("rdam",), ("network_g",), "network_g is missing"),
        (("idr", "--crop", 30), (), "--crop 30: it must be a multiple of scale 4"),
        (("idr", "--baseline", "none.pth"), (), r"none\.pth: cannot be read"),
        (("adaptation", "--mln", "x"), (), "--mln x: expected NAME=WEIGHTS"),
        (("adaptation", "--steps", 1, 1), (), "--steps 1 1: numbers from 0, each once"),
        (("adaptation",), ("network_t", "network_mln", "adaptation"), "network_mln is missing"),
    ],
)
def test_mistakes_are_told_in_one_line(draw, arguments, drop, message):
    with pytest.raises(UserError, match=message):
        draw(*arguments, drop=drop)


def test_without_weights_the_command_that_makes_them_is_named(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"net_g_latest\.pth does not exist"):
        figures.main(["rdam", "-opt", str(absent(tmp_path))])


def absent(tmp_path):
    opt = shrunk(ROOT / "options/demo/test_gaussian8_x4.yml")
    opt["path"] = {k: str(tmp_path / "net_g_latest.pth") for k in opt["path"]}
    (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
    return tmp_path / "o.yml"


def test_without_matplotlib_the_extra_is_named(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r'pip install "\.\[plots\]"'):
        draw("rdam")


def test_networks_trained_with_other_steps_are_a_line_each(tmp_path):
    lines = ["table,row,run,seed,dataset,column,psnr", "Table V,T2,teacher,0,Set5,PSNR,9.0"]
    for seed, row, psnr in [(0, "T2-n5", 30.0), (0, "T2-n1", 29.0), (1, "T2-n5", 31.0), (0, "S3-n5", 28.0)]:
        lines.append(f"Fig. 9b,{row},run,{seed},Set5,PSNR,{psnr}")
    path = tmp_path / "values.csv"
    path.write_text("\n".join(lines))
    assert trained_curves(path) == {"Set5": {"T2": {5: [30.0, 31.0], 1: [29.0]}, "S3": {5: [28.0]}}}
    figures.main(["steps", "--values", str(path)])
    assert is_png(tmp_path / "adaptation_trained.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"values\.csv: cannot be read"),
        ("row,dataset\nT2-n1,Set5", r"not a values\.csv of scripts/ablation\.py"),
        ("row,dataset,psnr\nT2,Set5,3.0", "none of the rows T2-n1"),
    ],
)
def test_a_table_without_trained_steps_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "values.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        figures.main(["steps", "--values", str(path)])
