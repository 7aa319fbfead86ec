"""What a checkpoint asks of its reader, looked at before torch reads it.

`torch.load(weights_only=True)` runs nothing, but a file of a kilobyte can still make it fill the memory or compute for
hours.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

# what tensors and plain values are stored as; not bytearray(10**12), torch.Tensor(10**12) and the like
_HARMLESS = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils (_rebuild_tensor|_rebuild_tensor_v2|_rebuild_parameter)"
    r"|torch\.nn\.parameter Parameter"
    r"|torch(\.cuda)? [A-Z]\w*Storage"
)
_TUPLE_USES = 40  # (t, t) for t and so on: 80 of these stand for a key of 10^12 parts, each of which is looked at
_LEGACY_PICKLES = 5  # of a file from before torch 1.6: magic number, version, machine, content, names of storages


class RefusedError(ValueError):
    """A file that asks for something no checkpoint needs; the message says what."""


def scan(path: str | Path) -> None:
    """Look through a file of torch.save, of either layout.

    Raises:
        RefusedError: compressed parts, or a pickle with functions or references that weights and states do without.
        OSError: it cannot be read.
        ValueError, zipfile.BadZipFile: it is damaged.
    """
    with Path(path).open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if not is_zip:
            for _ in range(_LEGACY_PICKLES):
                _scan_pickle(file)
            return
        size = file.seek(0, 2)
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            # torch never compresses; a megabyte can hold a thousand
            if sum(part.file_size for part in parts) > size:
                raise RefusedError("compressed, or parts that overlap; torch.save writes neither")
            for part in parts:
                if part.filename.lower().endswith(".pkl"):
                    part.CRC = None  # sums are no matter here; old files have zeros
                    with archive.open(part) as pickle:
                        _scan_pickle(pickle)


def _scan_pickle(file: BinaryIO) -> None:
    memo: dict[int, str] = {}  # how the object in each place was made
    uses, last = 0, ""
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = last
            continue
        if name in ("BINGET", "LONG_BINGET"):
            name = memo.get(argument, "")
            uses += name.startswith("TUPLE")
        elif name == "GLOBAL":
            if not _HARMLESS.fullmatch(argument):
                raise RefusedError(f"asks for {argument.replace(' ', '.')}, which no tensors and plain values need")
            name = argument
        # a tensor of one number can have the shape (10**12, 2), and would be taken for as many items
        starts_with_tensor = last == "collections OrderedDict" and name not in ("EMPTY_TUPLE", "EMPTY_LIST")
        if starts_with_tensor or (name == "BUILD" and "DICT" not in last):
            raise RefusedError("a dictionary that is made of something else")
        if uses > _TUPLE_USES:
            raise RefusedError("tuples within tuples, over and over")
        last = "DICT" if name.startswith("SETITEM") else name
