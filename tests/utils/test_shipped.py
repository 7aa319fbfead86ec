from __future__ import annotations

import pytest

from mrda_options.command_line import _resolve_paths
from mrda_utils import shipped
from mrda_utils.errors import OptionError, UserError


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDERS", (tmp_path / "mrda_weights", tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "lite.safetensors").touch()
    (tmp_path / "secret.safetensors").touch()
    return tmp_path


def test_weights_are_found_by_name(folders):
    assert shipped.shipped_weights("shipped:lite") == folders / "weights" / "lite.safetensors"


def test_the_installed_ones_win(folders):
    (folders / "mrda_weights").mkdir()
    (folders / "mrda_weights" / "lite.safetensors").touch()
    assert shipped.shipped_weights("shipped:lite") == folders / "mrda_weights" / "lite.safetensors"


@pytest.mark.parametrize("name", ["shipped:heavy", "shipped:", "shipped:../secret"])
def test_another_name_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError, match=rf"{name}: no such weights; known: shipped:lite"):
        shipped.shipped_weights(name)


def test_option_files_take_the_name(folders):
    opt = {"path": {"pretrain_network_g": "shipped:lite", "results_root": "results"}, "datasets": {}, "name": "x"}
    _resolve_paths(opt, folders)
    assert opt["path"]["pretrain_network_g"] == str(folders / "weights" / "lite.safetensors")
    opt["path"]["pretrain_network_t"] = "shipped:heavy"
    with pytest.raises(OptionError, match=r"path.pretrain_network_t: shipped:heavy: no such weights"):
        _resolve_paths(opt, folders)
