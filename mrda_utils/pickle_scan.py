"""An allow-list for the content of checkpoints, checked before torch reads them.

`torch.load(weights_only=True)` runs nothing, but a file of a kilobyte can still make it fill the memory, compute for
hours, or give tensors that reach beyond their numbers. Here the pickle is scanned without building its objects:
only the opcodes, functions and shapes pass that weights and training states consist of.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

_MOST_OPCODES = 2_000_000  # of a pickle; our largest training state has 20,000
_MOST_VALUES = 1_000_000  # of a pickle, with everything that is referred to written out where it is referred to
_DEEPEST = 20  # values within values; a training state has 6
MOST_DIMENSIONS = 8  # of a tensor; some of torch's functions take the square of the number
_MOST_NUMBERS = 2**40  # of a tensor, and what its sides would make if none of them were zero
_MOST_SHARING = 4  # bytes of all tensors over those of the file; weights and averaged weights may be the same
_LEGACY_PICKLES = 5  # of a file from before torch 1.6: magic number, version, machine, content, names of storages

_BYTES = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1}
_BYTES["Bool"] = 1
_STORAGES = {f"{module} {kind}Storage": size for kind, size in _BYTES.items() for module in ("torch", "torch.cuda")}
_ORDERED_DICT = "collections OrderedDict"
_TENSOR, _OLD_TENSOR = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"
_PARAMETER = "torch._utils _rebuild_parameter"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING"}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_GLOBALS = {_ORDERED_DICT, _TENSOR, _OLD_TENSOR, _PARAMETER, *_STORAGES}


class RefusedError(ValueError):
    """A file that asks for something no checkpoint needs; the message says what."""


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    numbers: int
    bytes: int


@dataclass(eq=False)
class _Value:
    """A list, tuple, dictionary or tensor: of what it consists, whatever the order; `size` counts when it is known."""

    kind: type
    parts: list[Any] = field(default_factory=list)


def read_parts(file: BinaryIO) -> io.BytesIO:
    """Rewrite the parts of a zip file of torch.save, so that the next reader sees what this one has seen.

    Zip files can be made to mean one thing to one reader and another to the next. Here one reader, Python's, decides.
    Each part's CRC-32 is compared with its content, which torch does not do; files without sums (zeros) are taken.

    Raises:
        RefusedError: compressed parts, duplicate names, bytes before the parts or after the directory.
        zipfile.BadZipFile, OSError, ValueError: damaged.
    """
    length, whole = file.seek(0, io.SEEK_END), io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(whole, "w") as copy:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
            raise RefusedError("compressed; torch.save does not compress")
        if sum(part.file_size for part in parts) > length:
            raise RefusedError("parts that overlap")
        if len({part.filename.lower() for part in parts}) < len(parts):  # torch does not look at the case
            raise RefusedError("two parts of one name")
        if not parts or min(part.header_offset for part in parts) or archive.comment:
            raise RefusedError("bytes before its first part, or behind its directory")
        has_sums = any(part.CRC for part in parts)
        for part in parts:
            if not has_sums:
                part.CRC = None
            copy.writestr(part.filename, archive.read(part))
    return whole


def scan(file: BinaryIO) -> None:
    """Scan a file of torch.save: what `read_parts` made of it, or one from before torch 1.6.

    Raises:
        RefusedError: it contains something that weights and training states never do.
        OSError, ValueError, zipfile.BadZipFile: it is damaged.
    """
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(2) == b"PK":
        _scan_parts(file, length)
        return
    file.seek(0)
    storages: dict[str, _Storage] = {}
    *_, keys = [_Scan(file, storages, length).run() for _ in range(_LEGACY_PICKLES)]
    if sum(storage.bytes for storage in storages.values()) > length:
        raise RefusedError("its tensors are larger than the file")
    if not isinstance(keys, _Value) or sorted(map(str, keys.parts)) != sorted(storages):
        raise RefusedError("tensors without numbers")


def _scan_parts(file: BinaryIO, length: int) -> None:
    with zipfile.ZipFile(file) as archive:
        sizes = {part.filename: part.file_size for part in archive.infolist()}
        folders = {name.partition("/")[0] for name in sizes}
        pickles = [name for name in sizes if name.lower().endswith(".pkl")]
        if len(folders) != 1 or pickles != [f"{(folder := folders.pop())}/data.pkl"]:
            raise RefusedError("no data.pkl, or other pickles beside it")
        storages: dict[str, _Storage] = {}
        with archive.open(pickles[0]) as pickle:
            _Scan(pickle, storages, length).run()
        for key, storage in storages.items():
            if sizes.get(f"{folder}/data/{key}") != storage.bytes:
                raise RefusedError("a tensor's numbers are not as many as it says")


class _Scan:
    """Scans one pickle with a stack of the kinds of its values.

    Args:
        file: at the beginning of the pickle.
        storages: collects the storages that tensors name.
        length: of the whole file, bytes.
    """

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage], length: int) -> None:
        self.file, self.storages, self.room = file, storages, _MOST_SHARING * length
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Scan to the pickle's end; return its content."""
        for opcode, argument, _ in islice(pickletools.genops(self.file), _MOST_OPCODES):
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        else:
            raise RefusedError(f"a pickle of more than {_MOST_OPCODES:,d} steps")
        (result,) = self.stack  # nothing may be left over
        if _written_out(result, {})[0] > _MOST_VALUES:
            raise RefusedError(f"values that stand for more than {_MOST_VALUES:,d} others")
        return result

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO":
                pass
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _LITERALS:
                stack.append(argument)
            case _ if name in _EMPTY:
                stack.append(_Value(_EMPTY[name]))
            case "MARK":
                self.marks.append(len(stack))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(_Value(tuple, self._pop(int(name[5:]) if name[5:] else None)))
            case "APPEND" | "APPENDS":
                self._extend(list, self._pop(1 if name == "APPEND" else None))
            case "SETITEM" | "SETITEMS":
                self._set(self._pop(2 if name == "SETITEM" else None))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self._global(argument))
            case "BINPERSID":
                stack.append(self._storage(*self._tuple(stack.pop())))
            case "REDUCE":
                function, arguments = self._pop(2)
                stack.append(self._call(function, self._tuple(arguments)))
            case "BUILD":
                self._build(*self._pop(1))
            case _:
                raise ValueError(name)  # in a file of another kind, above all

    def _pop(self, count: int | None) -> list[Any]:
        """The last `count` values, or those since the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("values from before a mark")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _extend(self, kind: type, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, _Value) or target.kind is not kind:
            raise RefusedError(f"something else where a {kind.__name__} should be")
        target.parts += values

    def _set(self, values: list[Any]) -> None:
        _check_keys(values[::2])
        if len(values) % 2:
            raise ValueError("a key without a value")
        self._extend(dict, values)

    def _build(self, attributes: Any) -> None:
        """Attributes of an OrderedDict, as state_dict makes it."""
        if not (isinstance(attributes, _Value) and attributes.kind is dict):
            raise RefusedError("attributes that are no dictionary")
        self._extend(dict, [attributes])

    def _global(self, name: str) -> _Global:
        if name not in _GLOBALS:
            raise RefusedError(f"asks for {name.replace(' ', '.')}, which no tensors and plain values need")
        return _Global(name)

    def _tuple(self, value: Any) -> list[Any]:
        if not isinstance(value, _Value) or value.kind is not tuple:
            raise RefusedError("something else where a tuple should be")
        return value.parts

    def _storage(self, *what: Any) -> _Storage:
        kind, storage, key, _, count, *view = what
        if (kind, type(key), type(count), view) not in (("storage", str, int, []), ("storage", str, int, [None])):
            raise RefusedError("numbers that are no storage of torch's")
        if not isinstance(storage, _Global) or storage.name not in _STORAGES or not 0 <= count <= _MOST_NUMBERS:
            raise RefusedError("numbers of a type that neither weights nor states have")
        found = _Storage(count, count * _STORAGES[storage.name])
        if self.storages.setdefault(key, found) != found:
            raise RefusedError("two storages of one name")
        return found

    def _call(self, function: Any, arguments: list[Any]) -> _Value:
        match function, arguments:
            case _Global(name), [] if name == _ORDERED_DICT:
                return _Value(dict)
            case _Global(name), [_Value(kind, pairs)] if name == _ORDERED_DICT and kind is list:  # Python 2's
                if not all(isinstance(pair, _Value) and pair.kind is list and len(pair.parts) == 2 for pair in pairs):
                    raise RefusedError("a dictionary that is made of something else")
                _check_keys([pair.parts[0] for pair in pairs])
                return _Value(dict, pairs)
            case _Global(name), [_Storage() as storage, offset, size, stride, *_] if name in (_TENSOR, _OLD_TENSOR):
                if len(arguments) != (6 if name == _TENSOR else 4):
                    raise RefusedError("a tensor with additions")
                self._check_tensor(storage, offset, self._tuple(size), self._tuple(stride))
                return _Value(object, arguments[4:])
            case _Global(name), [_Value(kind), *_] if name == _PARAMETER and kind is object and len(arguments) == 3:
                return _Value(object, arguments)
        raise RefusedError("a tensor or dictionary that is made of something else")

    def _check_tensor(self, storage: _Storage, offset: Any, size: list[Any], stride: list[Any]) -> None:
        """Require that a tensor is within its storage and has no more numbers than that."""
        if len(size) > MOST_DIMENSIONS or len(stride) != len(size):
            raise RefusedError(f"a tensor of {len(size)} dimensions; {MOST_DIMENSIONS} are allowed")
        if any(type(number) is not int or not 0 <= number <= _MOST_NUMBERS for number in (offset, *size, *stride)):
            raise RefusedError("a tensor of impossible size")
        count, last = math.prod(size), offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(max(side, 1) for side in size) > _MOST_NUMBERS:
            raise RefusedError("a tensor of impossible size")
        if count and (count > storage.numbers or last >= storage.numbers):
            raise RefusedError("a tensor that is larger than its numbers")
        self.room -= count * storage.bytes // max(storage.numbers, 1)
        if self.room < 0:
            raise RefusedError("its tensors are larger than the file")


def _check_keys(keys: list[Any]) -> None:
    if any(type(key) not in (str, int, float, bool, type(None)) for key in keys):
        raise RefusedError("a dictionary with keys that are neither names nor numbers")


def _written_out(value: Any, known: dict[int, tuple[float, int]], depth: int = 0) -> tuple[float, int]:
    """How many values it is, each reference replaced by what it refers to, and how deep they are within each other."""
    if not isinstance(value, _Value):
        return 1, 1
    if id(value) not in known:
        known[id(value)] = (math.inf, 0)  # while inside itself
        inside = [_written_out(part, known, depth + 1) for part in value.parts] if depth < _DEEPEST else [(0, _DEEPEST)]
        known[id(value)] = 1 + sum(count for count, _ in inside), 1 + max((height for _, height in inside), default=0)
    if known[id(value)][1] > _DEEPEST:
        raise RefusedError(f"values within values, more than {_DEEPEST} deep")
    return known[id(value)]
