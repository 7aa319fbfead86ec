"""Bicubic upsampling of Set5 has the numbers by which others check their protocol, wherever the images come from."""

from __future__ import annotations

import json

import pytest
import yaml

from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_utils.yaml_text import parse_yaml
from scripts.prepare_data import pack
from tests.model.conftest import ROOT

SET5 = ROOT / "datasets/Set5/HR"


@pytest.mark.skipif(not SET5.is_dir(), reason="needs the HR images of Set5 in datasets/Set5/HR")
def test_set5_has_its_numbers_by_every_route(tmp_path):
    opt = parse_yaml((ROOT / "options/test_bicubic.yml").read_text(), "test_bicubic.yml")
    opt.update(device="cpu", panels=0)

    def rows(*flags, **roots):
        opt["datasets"] = {"test_set5": {**opt["datasets"]["test_set5"], **roots}}
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
        run_test(tmp_path, ["-opt", str(tmp_path / "o.yml"), *flags])
        results = tmp_path / "results/test_bicubic"
        means = {mean["metric"]: mean["value"] for mean in json.loads((results / "metrics.json").read_text())["means"]}
        assert f"{means['psnr']:.2f} dB, {means['ssim']:.4f}" == "25.87 dB, 0.7301"
        return (results / "metrics.csv").read_bytes()

    (tmp_path / "HR").symlink_to(SET5)
    expected = rows("--save_lr", str(tmp_path / "lr"), dataroot_gt="HR")
    pack(tmp_path / "HR", 1)
    pack(tmp_path / "lr/Set5", 1)
    assert rows(dataroot_gt="HR.lmdb") == expected
    assert rows(dataroot_gt="HR", dataroot_lq="lr/Set5") == expected
    assert rows(dataroot_gt="HR", dataroot_lq="lr/Set5.lmdb") == expected
