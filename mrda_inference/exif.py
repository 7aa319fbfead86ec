"""EXIF: directories of tags, moved from file to file byte for byte, whatever their types and texts are."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import NamedTuple

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # of a value of each type
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_ORIENTATION, _COMPRESSION, _JPEG_START, _JPEG_LENGTH = 274, 259, 513, 514
_RESOLUTIONS, _RESOLUTION_UNIT = (282, 283), 296
_DETAILS, _GPS, _INTEROPERABILITY = 34665, 34853, 40965  # tags that point to another directory
_SIDES = (40962, 40963)  # PixelXDimension and PixelYDimension, among the details
_MOST_TAGS, _LARGEST = 4096, 1 << 24  # of a directory; bytes of all values, many times what a JPEG has room for
_OF_THE_FILE = {  # tags that describe how a TIFF stores its pixels, or what is kept elsewhere: XMP, profile, IPTC
    *range(254, 260), *(262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 292, 293, 317, 318, 319, 320),
    *range(322, 348), *(512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675, 37724),
}  # fmt: skip


class _Entry(NamedTuple):
    kind: int
    count: int
    data: bytes
    """In the block's byte order."""


_Directory = dict[int, _Entry]


@dataclass(frozen=True)
class Exif:
    """The tags of one picture."""

    order: str
    """> or <, as for struct."""
    main: _Directory
    details: _Directory
    gps: _Directory
    interoperability: _Directory
    has_thumbnail: bool
    is_damaged: bool
    """Something of it lies outside the block; the rest is here."""

    @property
    def orientation(self) -> int | None:
        """How to turn the picture, 1 to 8; None if it does not say."""
        found = self._numbers(self.main.get(_ORIENTATION))
        return found[0] if found and found[0] in range(1, 9) else None

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels an inch across and down."""
        ratios = [self._numbers(self.main.get(tag)) for tag in _RESOLUTIONS]
        unit = {2: 1, 3: 2.54}.get((self._numbers(self.main.get(_RESOLUTION_UNIT)) or [2])[0])
        if unit is None or not all(len(ratio) == 2 and ratio[1] for ratio in ratios):
            return None
        across, down = (unit * over / under for over, under in ratios)
        return across, down

    def _numbers(self, entry: _Entry | None) -> list[int]:
        letter = {_SHORT: "H", _LONG: "I", _RATIONAL: "I"}.get(entry.kind) if entry else None
        return [] if letter is None else [value for (value,) in struct.iter_unpack(self.order + letter, entry.data)]

    def upright(self) -> Exif:
        """The same for the picture after it has been turned."""
        turned = {_ORIENTATION: _Entry(_SHORT, 1, struct.pack(f"{self.order}H", 1))}
        return replace(self, main=self.main | turned) if _ORIENTATION in self.main else self

    def resized(self, width: int, height: int) -> Exif:
        """The same for a picture of these sides, where it names any."""
        sides = {
            tag: self._long(side) for tag, side in zip(_SIDES, (width, height), strict=True) if tag in self.details
        }
        return replace(self, details=self.details | sides)

    def _long(self, value: int) -> _Entry:
        return _Entry(_LONG, 1, struct.pack(f"{self.order}I", value))

    def to_bytes(self, thumbnail: bytes | None = None) -> bytes:
        """As a block that begins with its byte order mark; `thumbnail` is a JPEG. Empty without tags."""
        children = {_DETAILS: self.details, _GPS: self.gps}
        children = {tag: entries for tag, entries in children.items() if entries}
        if not self.main and not children:
            return b""
        if _DETAILS in children and self.interoperability:
            children[_DETAILS] = self.details | {_INTEROPERABILITY: self._long(0)}
        main = self.main | dict.fromkeys(children, self._long(0))
        parts, at = [], 8 + len(_packed(main, 8, self.order))
        for tag, entries in children.items():
            if _INTEROPERABILITY in entries:
                entries = entries | {_INTEROPERABILITY: self._long(at + len(_packed(entries, at, self.order)))}
            parts.append(_packed(entries, at, self.order))
            main[tag] = self._long(at)
            at += len(parts[-1])
            if _INTEROPERABILITY in entries:
                parts.append(_packed(self.interoperability, at, self.order))
                at += len(parts[-1])
        if thumbnail is not None:
            small = {_COMPRESSION: _Entry(_SHORT, 1, struct.pack(f"{self.order}H", 6)), _JPEG_START: self._long(0)}
            small[_JPEG_LENGTH] = self._long(len(thumbnail))
            small[_JPEG_START] = self._long(at + len(_packed(small, at, self.order)))
            parts += [_packed(small, at, self.order), thumbnail]
        mark = b"II" if self.order == "<" else b"MM"
        head = mark + struct.pack(f"{self.order}HI", 42, 8)
        return head + _packed(main, 8, self.order, at if thumbnail is not None else 0) + b"".join(parts)


def _packed(entries: _Directory, at: int, order: str, following: int = 0) -> bytes:
    """A directory as it lies at `at` of a block, with the values that have no room in it behind."""
    behind, start, head = b"", at + 6 + 12 * len(entries), struct.pack(f"{order}H", len(entries))
    for tag, (kind, count, data) in sorted(entries.items()):
        value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", start + len(behind))
        head += struct.pack(f"{order}HHI", tag, kind, count) + value
        behind += b"" if len(data) <= 4 else data + bytes(len(data) % 2)
    return head + struct.pack(f"{order}I", following) + behind


def read_exif(data: bytes, at: int | None = None) -> Exif:
    """Read the tags of a block, or of a TIFF file (BigTIFF too): all but those that describe how pixels are stored.

    Args:
        data: from the byte order mark on.
        at: where the directory of the picture is; None: the first.

    Raises:
        ValueError: no such block.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("no byte order mark")
    reader = _Reader(data, order, is_big=struct.unpack_from(f"{order}H", data, 2) == (43,))
    if at is None:
        (at,) = struct.unpack_from(f"{order}{'Q' if reader.is_big else 'I'}", data, 8 if reader.is_big else 4)
    main, following = reader.directory(at)
    details, gps = (reader.child(main, tag) for tag in (_DETAILS, _GPS))
    interoperability = reader.child(details, _INTEROPERABILITY)
    second = reader.directory(following, keep=True)[0] if following else {}
    return Exif(order, main, details, gps, interoperability, _JPEG_START in second, reader.is_damaged)


@dataclass
class _Reader:
    data: bytes
    order: str
    is_big: bool
    left: int = _LARGEST
    """Bytes that more values may have."""
    is_damaged: bool = False

    def child(self, parent: _Directory, tag: int) -> _Directory:
        """Take a directory out of the one that points to it."""
        pointer = parent.pop(tag, None)
        if pointer is None:
            return {}
        letter = {4: "I", 8: "Q"}.get(len(pointer.data))
        return self.directory(struct.unpack(self.order + letter, pointer.data)[0])[0] if letter else {}

    def directory(self, at: int, keep: bool = False) -> tuple[_Directory, int]:
        """Its tags that lie within the data, and where the next directory is or 0; `keep`: those of the file, too."""
        long, wide = ("Q", 20) if self.is_big else ("I", 12)
        room = struct.calcsize(f"={long}")  # bytes of a value within its entry
        found = {}
        try:
            (count,) = struct.unpack_from(f"{self.order}{'Q' if self.is_big else 'H'}", self.data, at)
            start = at + (8 if self.is_big else 2)
            for place in range(start, start + wide * min(count, _MOST_TAGS), wide):
                tag, kind, number = struct.unpack_from(f"{self.order}HH{long}", self.data, place)
                is_kept = kind in _SIZES or tag in (_DETAILS, _GPS, _INTEROPERABILITY)  # others are of BigTIFF alone
                if is_kept and (keep or tag not in _OF_THE_FILE):
                    length = number * _SIZES.get(kind, 8)
                    inside = place + wide - room
                    value = self._bytes(inside if length <= room else self._pointer(inside, long), length)
                    found.update({} if value is None or tag in found else {tag: _Entry(kind, number, value)})
        except (struct.error, OverflowError):  # a BigTIFF can point beyond all numbers
            self.is_damaged = True
            return found, 0
        after = start + wide * count
        return found, self._pointer(after, long) if after + room <= len(self.data) else 0

    def _pointer(self, at: int, long: str) -> int:
        return struct.unpack_from(self.order + long, self.data, at)[0]

    def _bytes(self, at: int, length: int) -> bytes | None:
        self.left -= length
        if at + length > len(self.data) or self.left < 0:
            self.is_damaged = True
            return None
        return self.data[at : at + length]
