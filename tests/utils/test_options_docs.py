"""options/schema.json and docs/options.md say what the schema checks."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from mrda_options import force
from mrda_utils.yaml_text import parse_yaml
from scripts import generate_options_docs as generator

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(p for kind in ("train", "test") for p in (ROOT / "options").rglob(f"{kind}_*.yml"))
TEACHER = ROOT / "options/train_teacher_x4.yml"


@pytest.fixture(scope="module")
def schema():
    return generator.json_schema()


@pytest.fixture(scope="module")
def mistakes(schema):
    """Messages of an independent validator about parsed options."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda opt: [error.message for error in validator.iter_errors(opt)]


def test_both_files_are_current(monkeypatch):
    monkeypatch.setattr("sys.argv", ["generate_options_docs.py", "--check"])
    generator.main()


@pytest.mark.parametrize("name", ["options/schema.json", "docs/options.md"])
def test_check_names_a_file_that_is_not_current_and_writes_nothing(monkeypatch, tmp_path, name):
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["generate_options_docs.py"])
    for folder in ("options", "docs"):
        (tmp_path / folder).mkdir()
    generator.main()
    (tmp_path / name).write_text("old")
    monkeypatch.setattr("sys.argv", ["generate_options_docs.py", "--check"])
    with pytest.raises(SystemExit, match=f"{name} is not current: run ") as caught:
        generator.main()
    assert isinstance(caught.value.code, str)  # Python's way to print it and to exit with 1
    assert (tmp_path / name).read_text() == "old"


def test_every_key_of_every_stage_is_described(schema):
    assert schema["discriminator"]["mapping"].keys() == generator.STAGE_NAMES.keys()
    missing = [
        (stage, key.name)
        for model_type, stage in generator.STAGE_NAMES.items()
        for key in generator.keys(schema, model_type)
        if not key.description
    ]
    assert not missing


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT / "options").as_posix())
def test_the_json_schema_accepts_every_option_file(path, mistakes):
    assert not mistakes(parse_yaml(path.read_text(), path.name))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT / "options").as_posix())
def test_every_option_file_tells_editors_where_the_json_schema_is(path):
    prefix = "# yaml-language-server: $schema="
    first = path.read_text().splitlines()[0]
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == ROOT / "options/schema.json"


@pytest.mark.parametrize(
    "entry",
    [
        "train:ema_deacy=0.9",
        "network_g:num_fea=8",
        "network_g:num_feat=wide",
        "network_g:type=MLN",
        "network_g:upsampler=nearest",
        "network_mln:upscale=four",
        "train:pixel_opt:loss_wieght=1",
        "train:pixel_opt:reduction=none",
        "train:optim_g:lr=-1e-4",
        "train:optim_g:betas=[0.9]",
        "train:kd_opt={}",
        "val:metrics:psnr:test_y_chanel=true",
        "val:metrics:psnr:test_y_channel=1.5",
        "val:metrics:psnr:crop_border=-1",
        "datasets:trian={}",
        "datasets:train:gt_size=0",
        "degradation:sigma_x=[1, 2]",
        "path:pretrain_network_mln=null",
        "scale=5",
        "model_type=MRDATeacher",
    ],
)
def test_the_json_schema_refuses_what_the_check_refuses(entry, mistakes):
    opt = parse_yaml(TEACHER.read_text(), "x")
    assert not mistakes(opt)
    force(opt, [entry])
    assert mistakes(opt)


def test_a_missing_key_is_refused(mistakes):
    opt = parse_yaml(TEACHER.read_text(), "x")
    for section in ("name", "train", "network_mln", "adaptation"):
        part = copy.deepcopy(opt)
        del part[section]
        assert mistakes(part)


def test_keys_of_registered_objects_are_those_of_their_signatures(schema):
    found = {key.name: key for key in generator.keys(schema, "MRDATeacherModel")}
    assert found["network_g.num_block"][3:] == ("integer", "`27`", "RDA blocks")
    assert found["network_mln.num_feat"][3:] == ("integer", "`128`", "C', channels of the feature map")
    assert found["train.pixel_opt.eps"].kind == "CharbonnierLoss"
    assert found["val.metrics.*.convert_to"].values == "`y`, `gray`"
    assert "val.metrics.*.img" not in found
    assert "train.meta.num_support" not in found


def test_the_table_gives_name_type_range_default_and_stages(schema):
    rows = (ROOT / "docs/options.md").read_text().splitlines()
    cells = {row.split(" | ")[0]: row.split(" | ")[1:4] for row in rows}
    assert cells["| `train.ema_decay`"] == ["number >= `0` < `1`", "`0.999`", "training"]
    assert cells["| `adaptation.inner_lrs`"] == ["[number > `0`, ...]", "required", "mln_meta, teacher, student, test"]
    assert json.loads((ROOT / "options/schema.json").read_text()) == schema
