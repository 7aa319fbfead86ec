from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.archs import build_network

from mrda_eval import complexity
from mrda_eval.complexity import count_mult_adds, count_parameters, device_name, input_shapes, runtime
from mrda_utils.errors import UserError
from scripts.complexity import main
from tests.model.conftest import SIZE, shrunk

ROOT = Path(__file__).resolve().parents[2]
RCAN = {"type": "RCAN", "num_in_ch": 3, "num_out_ch": 3, "num_group": 10, "num_block": 20}
SWINIR = {
    "type": "SwinIR",
    "upscale": 4,
    "window_size": 8,
    "embed_dim": 180,
    "depths": [6] * 6,
    "num_heads": [6] * 6,
    "mlp_ratio": 2,
    "upsampler": "pixelshuffle",
}


@pytest.fixture
def table(monkeypatch, tmp_path, capsys):
    """Function that runs the command on options; returns the rows by network and what it printed."""

    def table(opt, *flags):
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
        monkeypatch.setattr("sys.argv", ["complexity.py", "-opt", str(tmp_path / "o.yml"), *flags])
        main()
        text = capsys.readouterr().out
        rows = {cells[0]: cells[1:] for cells in map(str.split, text.splitlines()) if len(cells) in (5, 7)}
        return rows, text

    return table


def test_every_network_that_restores_has_a_row(table):
    opt = shrunk(ROOT / "options/train_student_x4.yml")
    rows, text = table(opt, "--lr_size", "10", "12", "--runs", "2")
    assert list(rows) == ["-----------", "network_g", "network_mln", "network_t", "oracle"]
    for section in ("network_g", "network_t", "network_mln"):
        net = build_network(opt[section])
        assert rows[section][0] == opt[section]["type"]
        assert float(rows[section][1]) == pytest.approx(count_parameters(net) / 1e6, abs=0.005)
        expected = count_mult_adds(net, input_shapes(opt[section], 10, 12)) / 1e9
        assert float(rows[section][2]) == pytest.approx(expected, abs=0.005)
        assert float(rows[section][3]) > 0
    assert float(rows["oracle"][-1]) > float(rows["network_t"][-1])  # its network, and MLN's steps before
    assert "LR 10x12, x4; time: median of 2 runs on " + device_name(torch.device("cpu")) in text


@pytest.mark.parametrize("path", sorted((ROOT / "options").glob("train_*_x4.yml")), ids=lambda path: path.stem)
def test_the_networks_of_every_stage_are_measured(table, path):
    opt = shrunk(path)
    rows, _ = table(opt, "--lr_size", "8", "8", "--runs", "1")
    assert rows.keys() >= {name for name in ("network_g", "network_t", "network_mln") if name in opt}


def test_the_kernel_of_a_network_that_is_told_it_costs_its_linear_layers():
    opt = {"type": "MRDAKernelNet", **SIZE, "kernel_size": 5}
    assert input_shapes(opt, 8, 9) == [(1, 3, 8, 9), (1, 5, 5)]
    net, width = build_network(opt), 4 * SIZE["den_feat"]
    more = count_mult_adds(net, input_shapes(opt, 8, 9)) - count_mult_adds(
        build_network({**opt, "kernel_size": 3}), [(1, 3, 8, 9), (1, 3, 3)]
    )
    assert more == (5**2 - 3**2) * width


def test_the_papers_student_has_the_papers_columns(table):
    opt = shrunk(ROOT / "options/test_gaussian8_x4.yml")
    full = yaml.safe_load((ROOT / "options/test_gaussian8_x4.yml").read_text())
    opt["network_g"] = full["network_g"]
    rows, _ = table(opt, "--lr_size", "18", "32", "--runs", "1")
    assert rows["network_g"][1] == "5.84"  # Table II
    assert float(rows["network_g"][2]) == pytest.approx(172.13 / 100, rel=0.005)


def test_a_file_without_networks_is_an_error(table):
    opt = yaml.safe_load((ROOT / "options/test_bicubic.yml").read_text())
    with pytest.raises(UserError, match="names no network"):
        table(opt)


@pytest.mark.parametrize("flags", [["--runs", "0"], ["--lr_size", "0", "5"]])
def test_sizes_and_runs_are_positive(table, flags):
    with pytest.raises(UserError, match="must be at least 1"):
        table(shrunk(ROOT / "options/train_student_x4.yml"), *flags)


def test_the_time_is_the_median_after_a_warm_up(monkeypatch):
    now, costs = [0.0], iter([100.0, 5.0, 1.0, 3.0, 9.0, 2.0])
    monkeypatch.setattr(complexity.time, "perf_counter", lambda: now[0])

    def work():
        now[0] += next(costs)

    assert runtime(work, torch.device("cpu")) == 3.0


def test_a_teacher_is_counted_with_what_its_den_reads():
    net_opt = {"type": "MRDANet", **SIZE, "den_in_ch": 5}
    net, student = build_network(net_opt), build_network({**net_opt, "den_in_ch": 3})
    assert input_shapes(net_opt, 8, 9) == [(1, 3, 8, 9), (1, 5, 8, 9)]
    more = count_mult_adds(net, [(1, 3, 8, 9), (1, 5, 8, 9)]) - count_mult_adds(student, [(1, 3, 8, 9)])
    assert more == 8 * 9 * (5 - 3) * SIZE["den_feat"] * 9  # DEN's first convolution


@pytest.mark.parametrize(("opt", "millions"), [(RCAN, 15.59), (SWINIR, 11.90)], ids=["RCAN", "SwinIR"])
def test_basicsrs_networks_have_the_sizes_of_table_ii(opt, millions):
    assert count_parameters(build_network(opt)) / 1e6 == pytest.approx(millions, abs=0.005)


def test_counting_leaves_a_network_as_it_was():
    small = {"depths": [2], "num_heads": [2], "embed_dim": 4, "window_size": 4, "img_size": 8}
    net = build_network({**SWINIR, **small}).eval()  # keeps a tensor on the device of its last input
    lq = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        before = net(lq)
        assert count_mult_adds(net, [(1, 3, 8, 8)]) > 0
        assert torch.equal(net(lq), before)


def test_mult_adds_of_attention_by_hand():
    class Attention(torch.nn.Module):
        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)  # (1, 20, 3)
            return (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens

    assert count_mult_adds(Attention(), [(1, 3, 4, 5)]) == 2 * 20 * 20 * 3


def test_the_cpu_is_named_with_its_threads():
    assert re.fullmatch(r".+, 1 thread\(s\)", device_name(torch.device("cpu")))
