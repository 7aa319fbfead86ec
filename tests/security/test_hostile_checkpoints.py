"""Files of weights and training states of a stranger."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrda_arch import MLN
from mrda_model import training_state
from mrda_model.weights import Provenance, load_network
from mrda_utils import checkpoint
from mrda_utils.checkpoint import CheckpointError
from scripts.convert_official import from_official, to_official
from tests.security.conftest import LONG, SHORT, damaged

HERE = Provenance("MLNMetaModel", 4, "type bicubic")
NET = MLN(num_feat=4)


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


def stored(content, **kwargs) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def part(data: bytes, ending: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(ending)))


def archive(pickled: bytes, *storages: bytes, names: tuple = (), compression: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint of a pickle and storages, however they were made; with empty parts of these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as parts, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        parts.writestr("a/data.pkl", pickled)
        parts.writestr("a/byteorder", "little")
        for number, storage in enumerate(storages):
            parts.writestr(f"a/data/{number}", storage)
        for name in names:
            parts.writestr(name, b"")
        parts.writestr("a/version", "3\n")
    return file.getvalue()


def call(name: str, number: int) -> bytes:
    """A pickle of name(number)."""
    return b"\x80\x02c" + name.replace(".", "\n", 1).encode() + b"\n\x8a\x08" + number.to_bytes(8, "little") + b"\x85R."


def tree(depth: int, width: int) -> bytes:
    """A pickle of [[], a, b, ...], where a = [[], [], ...], b = [a, a, ...] and so on."""
    levels = b"".join(b"](%seq%c" % (b"h%c" % level * width, level + 1) for level in range(depth))
    return b"\x80\x02](]q\x00" + levels + b"e."


def commented(data: bytes) -> bytes:
    """The same zip file with a comment at its end."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as parts:
        parts.comment = b"more"
    return file.getvalue()


def tensor(size: list[int], stride: list[int], offset: int = 0) -> bytes:
    """Weights of one tensor with this size and stride, on a storage of four numbers."""
    data = stored({"params": {"a": torch.ones(4)}})
    before, after = re.split(rb"QK\x00K\x04\x85q.K\x01\x85q.", part(data, "data.pkl"), flags=re.DOTALL)
    offset, size, stride = (
        [b"\x8a\x0a" + number.to_bytes(10, "little", signed=True) for number in numbers]
        for numbers in ([offset], size, stride)
    )
    middle = b"Q%s(%st(%st" % (offset[0], b"".join(size), b"".join(stride))
    return archive(before + middle + after, part(data, "data/0"))


WIDE = stored(torch.ones(1).expand(10**9, 2))
WIDE_TENSOR = part(WIDE, "data.pkl")[2:-1]  # without the pickle's first and last bytes
ONE_NUMBER = part(WIDE, "data/0")
ORDERED_DICT = b"ccollections\nOrderedDict\n"
ONES = stored({"a": torch.ones(4)})
BIG = torch.ones(10_000)
BOMB = stored({"a": torch.zeros(10**9, dtype=torch.uint8)})

FILES = {
    "pickle": (pickle.dumps(Evil()), "damaged, or no file of tensors"),
    "pickle of old": (pickle.dumps(Evil(), protocol=0), r"asks for posix\.system"),
    "torch.save": (stored({"params": Evil()}), r"asks for posix\.system"),
    "torch.save of old": (stored({"params": Evil()}, _use_new_zipfile_serialization=False), r"asks for posix\.system"),
    "compressed zeros": (
        archive(part(BOMB, "data.pkl"), part(BOMB, "data/0"), compression=zipfile.ZIP_DEFLATED),
        "compressed; torch.save does not",
    ),
    "bytearray": (archive(call("builtins.bytearray", 10**11)), r"asks for builtins\.bytearray"),
    "tensor by size": (archive(call("torch.Tensor", 10**11)), r"asks for torch\.Tensor"),
    "lists in lists, deep": (archive(tree(60, 2)), "values within values, more than 20 deep"),
    "lists in lists, wide": (archive(tree(15, 10)), "values that stand for more than 1,000,000 others"),
    "a list within itself": (archive(b"\x80\x02]q\x00h\x00a."), "values that stand for more than 1,000,000 others"),
    "tuple as a key": (archive(b"\x80\x02})K\x01s."), "keys that are neither names nor numbers"),
    "values left over": (archive(b"\x80\x02}}."), "damaged"),
    "below a mark": (archive(b"\x80\x02}(K\x01s."), "damaged"),
    "no end": (archive(b"\x80\x02}" + b"N0" * 10), "damaged"),
    "a tensor of 9 dimensions": (stored({"a": torch.ones(1, 1, 1, 1, 1, 1, 1, 1, 1)}), "9 dimensions; 8 are allowed"),
    "a tensor of 100,000 dimensions": (tensor([1] * 100_000, [1] * 100_000), "100000 dimensions; 8 are allowed"),
    "a tensor of no number and endless sides": (tensor([0, 2**62], [1, 1]), "impossible size"),
    "a tensor of a negative size": (tensor([-1], [1]), "impossible size"),
    "strides beyond the storage": (tensor([2, 2], [100, 1]), "larger than its numbers"),
    "negative strides": (tensor([2, 2], [-1, 1]), "impossible size"),
    "an offset beyond the storage": (tensor([2, 2], [2, 1], offset=1), "larger than its numbers"),
    "many views of one storage": (stored({"params": {str(n): BIG.view(-1) for n in range(9)}}), "larger than the file"),
    "float8": (stored({"params": {"a": torch.ones(2).to(torch.float8_e4m3fn)}}), "asks for torch"),
    "complex": (stored({"params": {"a": torch.ones(2, dtype=torch.cfloat)}}), "asks for torch.ComplexFloatStorage"),
    "whole numbers": (
        stored({"params": {name: weight.int() for name, weight in NET.state_dict().items()}}),
        "is of type int32, MLN needs float32",
    ),
    "truth values": (
        stored({"params": {name: weight.bool() for name, weight in NET.state_dict().items()}}),
        "is of type bool, MLN needs float32",
    ),
    "bytes": (stored({"params": {"a": torch.ones(2, dtype=torch.uint8)}}), "a is of type uint8, no weights"),
    "bytes before it": (b"PK\x03\x04" + bytes(60) + WIDE, "bytes before its first part"),
    "two directories": (stored({"a": torch.ones(2)}) + stored({"a": torch.zeros(2)}), "bytes before its first part"),
    "a comment": (commented(WIDE), "behind its directory"),
    "one name twice": (archive(b"\x80\x02}.", names=("a/data.pkl",)), "two parts of one name"),
    "one name in two cases": (archive(b"\x80\x02}.", names=("A/DATA.PKL",)), "two parts of one name"),
    "another pickle": (archive(b"\x80\x02}.", names=("a/constants.pkl",)), "other pickles beside it"),
    "another folder": (archive(b"\x80\x02}.", names=("b/data/0",)), "no data.pkl"),
    "methods as attributes": (
        archive(b"\x80\x02" + ORDERED_DICT + b")R}X\x05\x00\x00\x00itemsK\x01sb."),
        "contains no weights",
    ),
    "dictionary of a wide tensor": (
        archive(b"\x80\x02" + ORDERED_DICT + WIDE_TENSOR + b"\x85R.", ONE_NUMBER),
        "a tensor that is larger than its numbers",
    ),
    "attributes of a wide tensor": (
        archive(b"\x80\x02" + ORDERED_DICT + b")R" + WIDE_TENSOR + b"b.", ONE_NUMBER),
        "a tensor that is larger than its numbers",
    ),
    "storage that ends early": (archive(part(BOMB, "data.pkl"), b"12345678"), "larger than the file"),
    "storage of another size": (archive(part(ONES, "data.pkl"), bytes(17)), "not as many as it says"),
    "wide tensor as weights": (
        stored({"params": dict.fromkeys(NET.state_dict(), torch.ones(1).expand(10**12))}),
        "a tensor that is larger than its numbers",
    ),
    "other names": (stored({"params": {("a", "b"): torch.ones(1)}}), "keys that are neither names nor numbers"),
    "number as a name": (stored({"params": {10**500: torch.ones(1)}}), "contains no weights"),
    "deep list": (archive(b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."), "values within values"),
    "a list": (stored([]), "contains a list"),
    "NaN": (
        stored({"params": NET.state_dict() | {"body.0.weight": torch.full_like(NET.body[0].weight, torch.nan)}}),
        r"body\.0\.weight is not finite",
    ),
    "infinity": (
        stored({"params": NET.state_dict() | {"body.0.bias": torch.full_like(NET.body[0].bias, torch.inf)}}),
        r"body\.0\.bias is not finite",
    ),
    "sparse": (stored({"params": {"a": torch.ones(2, 2).to_sparse()}}), "asks for torch"),
    "stage": (stored({"params": NET.state_dict(), "mrda": {"stage": ["x"], "scale": 4}}), "makes no sense"),
    "scale": (stored({"params": NET.state_dict(), "mrda": {"stage": "x", "scale": 10**500}}), "makes no sense"),
    "endless degradation": (
        stored({"params": NET.state_dict(), "mrda": {"stage": "x", "scale": 4, "degradation": ", a " * 10**6}}),
        "makes no sense",
    ),
    "empty provenance": (stored({"params": NET.state_dict(), "mrda": {}}), "makes no sense"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("data", "message"), FILES.values(), ids=FILES)
def test_hostile_weights_are_refused_by_name_and_nothing_runs(data, message, tmp_path, monkeypatch, little_memory):
    monkeypatch.chdir(tmp_path)
    # torch reads a file of the second name in another way
    for name, expected in {"w.pth": message, "w.safetensors": ""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{name}: .*{expected}") as caught:
            load_network(MLN(num_feat=4), tmp_path / name, stage="MLNMetaModel", degradation="type bicubic")
        assert len(str(caught.value)) < 3000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.pth", "w.safetensors"]


def test_files_of_python_2_are_read():
    """The heads of LPIPS, from 2018."""
    path = Path(find_spec("lpips").origin).parent / "weights/v0.1/alex.pth"
    assert list(checkpoint.load(path)) == [f"lin{n}.model.1.weight" for n in range(5)]


def safetensors_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def described(shape: list[int], kind: str = "F32", size: int = 4) -> dict:
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}


DEEP = {"__metadata__": {"mrda.provenance": "[" * 100_000}, **described([1])}
SAFETENSORS = {
    "deep JSON": (safetensors_file(DEEP, bytes(4)), "no JSON of a few levels"),
    "deep header": (safetensors_file(b'{"__metadata__": ' + b"[" * 100_000), "no safetensors file"),
    "endless header": ((2**40).to_bytes(8, "little") + b"{}", "a header of 1,099,511,627,776 bytes"),
    "size beyond 64 bits": (safetensors_file(described([2**64 - 1]), bytes(4)), "no safetensors file"),
    "sides that make 2^64": (safetensors_file(described([2**32, 2**32]), bytes(4)), "no safetensors file"),
    "no number and endless sides": (safetensors_file(described([0, 2**63], size=0)), "no safetensors file"),
    "many dimensions": (safetensors_file(described([1] * 100_000), bytes(4)), "a has 100000 dimensions; 8 are allowed"),
    "float8": (safetensors_file(described([4], "F8_E4M3"), bytes(4)), "a is of type float8_e4m3fn, no weights"),
    "complex": (safetensors_file(described([1], "C64", 8), bytes(8)), "a is of type complex64, no weights"),
    "bytes": (safetensors_file(described([4], "U8"), bytes(4)), "a is of type uint8, no weights"),
    "names of other weights": (safetensors_file(described([1]), bytes(4)), "does not fit MLN"),
    "empty": (b"", "no safetensors file"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("data", "message"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_hostile_safetensors_are_refused_by_name(data, message, tmp_path, little_memory):
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"w\.safetensors: .*{message}") as caught:
        load_network(MLN(num_feat=4), tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "3.state"])
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="a folder, pipe or device, no file"):
        checkpoint.load(tmp_path / name)
    assert not checkpoint.is_whole(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="a folder, pipe or device, no file"):
        checkpoint.load(tmp_path / name)


@pytest.mark.parametrize("path", ["a\0b.pth", "x" * 5000, "a\0b.safetensors"])
def test_a_name_that_no_file_can_have_is_one_line(path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)


def test_tensors_come_in_storage_of_their_own(tmp_path):
    """Whatever views they were in the file: nobody who writes to one changes another, or what lies beyond it."""
    numbers = torch.arange(6.0)
    content = {"a": numbers[:4].view(2, 2).T, "b": numbers[2:], "c": numbers[0].expand(1)}
    torch.save(content, tmp_path / "w.pth")
    read = checkpoint.load(tmp_path / "w.pth")
    assert all(torch.equal(read[name], tensor) for name, tensor in content.items())
    for tensor in read.values():
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.parametrize("old", [False, True])
def test_what_checkpoints_hold_is_read(tmp_path, old):
    content = {
        "params": NET.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **{str(dtype): torch.ones(2).to(dtype) for dtype in (torch.bfloat16, torch.half, torch.int64, torch.bool)},
        "plain": [None, True, -5, 10**30, 0.5, "ä", (1, 2), {"a": {}}],
    }
    (tmp_path / "w.pth").write_bytes(stored(content, _use_new_zipfile_serialization=not old))
    read = checkpoint.load(tmp_path / "w.pth")
    assert read.keys() == content.keys()
    assert read["plain"] == content["plain"]
    assert all(torch.equal(tensor, read["params"][name]) for name, tensor in NET.state_dict().items())


def moments(**changes):
    return {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2, 3), "exp_avg_sq": torch.zeros(2, 3), **changes}


STATE = {
    "iter": 3,
    "mrda": HERE._asdict(),
    "optimizers": [{"state": {0: moments()}, "param_groups": []}],
    "best_metric_results": {"Set5": {"psnr": {"val": 30.0, "iter": 2}}},
    "validated_iter": 2,
    "skipped": [0.0, 0.0],
}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"iter": -1}, "iter"),
        ({"iter": "3"}, "iter"),
        ({"iter": 2**70}, "iter"),
        ({"mrda": []}, "mrda"),
        ({"mrda": {}}, "makes no sense"),
        ({"optimizers": {}}, "optimizers"),
        ({"optimizers": [1]}, r"optimizers\.0"),
        ({"best_metric_results": {"Set5": {"psnr": 3}}}, r"best_metric_results\.Set5\.psnr"),
        ({"validated_iter": None}, "validated_iter"),
        ({"skipped": [0.0]}, "skipped"),
    ],
)
def test_a_state_with_other_things_in_it_is_refused(tmp_path, change, where):
    torch.save(STATE, tmp_path / "3.state")
    assert training_state.load_state(tmp_path / "3.state")["iter"] == 3
    torch.save(STATE | change, tmp_path / "3.state")
    with pytest.raises(CheckpointError, match=rf"3\.state: .*{where}"):
        training_state.load_state(tmp_path / "3.state")


@pytest.mark.parametrize(
    "state",
    [
        None,
        {5: moments()},
        {"0": moments()},
        {0: 1},
        {0: moments(more=1)},
        {0: moments(step=3)},
        {0: moments(exp_avg=torch.zeros(3, 2))},
        {0: moments(exp_avg=torch.zeros(1).expand(10**7, 10**7))},
        {0: moments(exp_avg_sq=torch.full((2, 3), torch.nan))},
        {0: moments(exp_avg=torch.zeros(2, 3, dtype=torch.int32))},
    ],
    ids=lambda state: repr(state)[:30],
)
def test_moments_of_another_network_are_refused(state, tmp_path):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2, 3))])
    training_state.load_moments(optimizer, {"state": {0: moments()}}, tmp_path / "3.state")
    training_state.load_moments(optimizer, {"state": {}}, tmp_path / "3.state")
    with pytest.raises(CheckpointError, match=r"3\.state: the optimizer's state does not fit"):
        training_state.load_moments(optimizer, {"state": state}, tmp_path / "3.state")


def test_a_moment_of_one_number_gets_storage_of_its_own(tmp_path):
    weight = torch.nn.Parameter(torch.ones(200, 300))
    optimizer = torch.optim.Adam([weight], fused=True)
    expanded = {name: torch.zeros(()).expand(200, 300) for name in ("exp_avg", "exp_avg_sq")}
    training_state.load_moments(
        optimizer, {"state": {0: {"step": torch.tensor(3.0), **expanded}}}, tmp_path / "3.state"
    )
    for name in expanded:
        moment = optimizer.state[weight][name]
        assert moment.stride() == (300, 1)
        assert moment.untyped_storage().nbytes() == 4 * 200 * 300


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "weights",
    [
        {"head.0.weight": torch.ones(3)},
        {"head.0.weight": torch.ones(0, 3, 3, 3), "tail.0.0.weight": torch.ones(4, 4, 3, 3)},
        {"head.0.weight": torch.ones(20_000, 3, 3, 3), "tail.0.0.weight": torch.ones(80_000, 1, 1, 1)},
        {
            "E.E.0.weight": torch.ones(1, 1, 1, 1),
            "G.head.0.weight": torch.ones(1, 3, 1, 1),
            "G.tail.0.0.weight": torch.ones(4, 1, 1, 1),
            **{f"G.body.0.body.{n}.x": torch.ones(1) for n in range(1500)},
        },
        {"den.body.0.weight": torch.ones(3)},
        {"body.0.weight": torch.ones(())},
    ],
    ids=["no convolution", "no channel", "few layers of many channels", "many blocks", "our student", "our MLN"],
)
@pytest.mark.parametrize("convert", [from_official, to_official])
def test_official_weights_with_other_sizes_are_refused(weights, convert, tmp_path, little_memory):
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt: "):
        convert(tmp_path / "model.pt", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


WEIGHTS = stored({"params": NET.state_dict(), "mrda": {**HERE._asdict(), "iteration": 1}})
OLD_WEIGHTS = stored({"params": NET.state_dict()}, _use_new_zipfile_serialization=False)
STATES = stored(STATE)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.builds(torch.ones, st.lists(st.integers(0, 3), max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


@st.composite
def changed_contents(draw):
    """Weights or a state in which a part is replaced by something else."""
    content = draw(st.sampled_from([{"params": dict(NET.state_dict()), "mrda": HERE._asdict()}, STATE]))
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    section = draw(st.sampled_from([content, *(part for part in content.values() if isinstance(part, dict) and part)]))
    section[draw(st.sampled_from(sorted(section)))] = draw(PLAIN)
    return stored(content)


def check_any_file(path, data):
    path.write_bytes(data)
    for read in (lambda: load_network(MLN(num_feat=4), path), lambda: training_state.load_state(path)):
        with contextlib.suppress(CheckpointError):
            read()


ANY_FILE = changed_contents() | st.sampled_from([WEIGHTS, OLD_WEIGHTS, STATES]).flatmap(damaged)


@settings(SHORT, max_examples=100)
@given(data=ANY_FILE)
def test_any_file_is_taken_or_refused(tmp_path, data):
    check_any_file(tmp_path / "w.pth", data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@LONG
@given(data=ANY_FILE)
def test_any_file_is_taken_or_refused_at_length(tmp_path, data):
    check_any_file(tmp_path / "w.pth", data)
