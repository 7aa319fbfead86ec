"""What a photograph's file holds beside its pixels, against a reader and a writer of EXIF that know nothing of ours."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from mrda_inference.image_file import read_picture
from mrda_inference.image_writer import write_pixels
from mrda_inference.side_data import enlarged_side_data, read_side_data

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PIXELS = np.add.outer(np.arange(8) * 9, np.arange(12) * 3)[..., None].repeat(3, 2).astype(np.uint8)
DETAILS, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}


def camera_block(order):
    """An EXIF block, written by hand: texts that are no ASCII, and every type."""

    def numbers(letter, *values):
        return struct.pack(f"{order}{len(values)}{letter}", *values)

    def text(value):
        return 2, len(value.encode()) + 1, value.encode() + b"\0"

    note = "Grüße".encode("utf-16-le" if order == "<" else "utf-16-be")
    interoperability = {1: text("R98"), 2: (7, 4, b"0100")}
    details = {
        0x829A: (5, 1, numbers("I", 1, 125)),
        0x9204: (10, 1, numbers("i", -1, 3)),
        0x9201: (10, 1, numbers("i", 6_965_784, 1_000_000)),
        0x927C: (7, 40, b"MakerNote" + bytes(31)),
        0x9286: (7, 8 + len(note), b"UNICODE\0" + note),
        0xA300: (7, 1, b"\3"),
        0xA434: text("Objektiv Ü 24-70"),
        0xA002: (4, 1, numbers("I", 12)),
        0xA003: (3, 1, numbers("H", 8)),
    }
    places = {1: text("N"), 2: (5, 3, numbers("I", 52, 1, 30, 1, 12, 10)), 0: (1, 4, b"\2\3\0\0")}
    main = {
        0x10F: text("Camera"),
        0x10E: text("Müller, Straße"),
        0x8298: text("© 2024 日本"),
        0x112: (3, 1, numbers("H", 6)),
        0x11A: (5, 1, numbers("I", 300, 1)),
        0x11B: (5, 1, numbers("I", 300, 1)),
        0x4746: (3, 1, numbers("H", 5)),
    }
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8))

    def add(tags, children):
        at = len(out)
        out.extend(bytes(6 + 12 * (len(tags) + len(children))))
        entries = {}
        for tag, (kind, count, data) in tags.items():
            if len(data) > 4:
                entries[tag] = kind, count, struct.pack(f"{order}I", len(out))
                out.extend(data)
            else:
                entries[tag] = kind, count, data.ljust(4, b"\0")
        for tag, child in children.items():
            entries[tag] = 4, 1, struct.pack(f"{order}I", add(*child))
        struct.pack_into(f"{order}H", out, at, len(entries))
        for place, tag in enumerate(sorted(entries)):
            kind, count, value = entries[tag]
            out[at + 2 + 12 * place : at + 14 + 12 * place] = struct.pack(f"{order}HHI", tag, kind, count) + value
        return at

    add(main, {DETAILS: (details, {INTEROPERABILITY: (interoperability, {})}), GPS: (places, {})})
    return bytes(out)


def parsed(block):
    """Path of tags -> type, count, bytes."""
    order, found = {b"II": "<", b"MM": ">"}[block[:2]], {}

    def directory(at, path):
        (count,) = struct.unpack_from(f"{order}H", block, at)
        assert count < 40
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", block, entry)
            length, place = SIZES[kind] * number, entry + 8
            if length > 4:
                (place,) = struct.unpack_from(f"{order}I", block, place)
            assert place + length <= len(block)
            if tag in (DETAILS, GPS, INTEROPERABILITY):
                directory(struct.unpack_from(f"{order}I", block, place)[0], (*path, tag))
            else:
                found[(*path, tag)] = kind, number, block[place : place + length]

    directory(struct.unpack_from(f"{order}I", block, 4)[0], ())
    return found


def jpeg(**options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", **options)
    return file.getvalue()


def png(*chunks):
    """A PNG of the pixels with these chunks before its first IDAT; those of the second list behind the last."""
    before, behind = chunks if len(chunks) == 2 and all(isinstance(part, list) for part in chunks) else (chunks, [])
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    data = file.getvalue()
    return data[:33] + b"".join(before) + data[33:-12] + b"".join(behind) + data[-12:]


def chunk(kind, body, is_sound=True):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ (not is_sound))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_is_kept_byte_for_byte(tmp_path, order, container, suffix):
    block = camera_block(order)
    if container == "PNG":
        data = png(chunk(b"eXIf", block))
    else:
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, container, exif=b"Exif\0\0" + block)
        data = file.getvalue()
    side, orientation, notes = read_side_data(data)
    assert orientation == 6
    assert notes == []
    large = np.zeros((48, 32, 3), np.uint8)
    write_pixels(large, enlarged_side_data(side, large), tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        image.load()
        found = parsed(image.info["exif"].removeprefix(b"Exif\0\0"))
    expected = parsed(block)
    for path, value in {(0x112,): 1, (DETAILS, 0xA002): 32, (DETAILS, 0xA003): 48}.items():
        kind, count, data = found.pop(path)
        assert (count, *struct.unpack(order + {3: "H", 4: "I"}[kind], data)) == (1, value)
        del expected[path]
    assert found == expected


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
def test_the_tags_of_a_tiff_are_its_exif(options):
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        extra = [(270, 2, 0, "Müller".encode(), True), (315, 2, 0, "Jürgen".encode(), True), (700, 1, 3, b"xmp", True)]
        picture = {"resolution": (300, 300), "resolutionunit": 2, "iccprofile": SRGB, "extratags": extra}
        writer.write(PIXELS, photometric="rgb", metadata=None, software=False, **picture)
    side, orientation, notes = read_side_data(file.getvalue())
    assert (orientation, notes) == (1, [])
    assert side.profile == SRGB
    assert side.xmp == b"xmp"
    assert side.dpi == (300, 300)
    found = parsed(side.exif)
    assert found[270,][2] == "Müller".encode() + b"\0"
    assert found[315,][2] == "Jürgen".encode() + b"\0"
    assert {tag for (tag,) in found} == {270, 282, 283, 296, 315}


def test_the_side_data_of_a_tiff_are_those_of_its_picture():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PIXELS[:2, :3], photometric="rgb", metadata=None, subfiletype=1, resolution=(72, 72))
        writer.write(PIXELS, photometric="rgb", metadata=None, resolution=(300, 300), iccprofile=SRGB)
    side = read_side_data(file.getvalue())[0]
    assert side.profile == SRGB
    assert side.dpi == (300, 300)


def test_the_first_of_two_pictures_in_a_jpeg_keeps_its_side_data(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    pictures = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    pictures[0].save(
        file, "MPO", save_all=True, append_images=pictures[1:], exif=exif, icc_profile=SRGB, dpi=(300, 300)
    )
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.colour.shape == (12, 8, 3)
    assert picture.notes == ()
    assert (picture.side.profile, picture.side.dpi) == (SRGB, (300, 300))


LONG_PROFILE = (len(SRGB) + 3_000_000).to_bytes(4, "big") + SRGB[4:] + np.random.default_rng(0).bytes(3_000_000)
LONG_XMP = b"<x:xmpmeta>" + np.random.default_rng(0).bytes(3_000_000).hex().encode() + b"</x:xmpmeta>"
TEXT = b"XML:com.adobe.xmp\0\1\0\0\0"
ODD = {  # chunks of a PNG, and the line about them
    "long profile": (chunk(b"iCCP", b"a\0\0" + zlib.compress(LONG_PROFILE)), None),
    "long compressed XMP": (chunk(b"iTXt", TEXT + zlib.compress(LONG_XMP)), None),
    "long compressed text": (chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG_XMP)), None),
    "text with a wrong checksum": (chunk(b"tEXt", b"Comment\0none", is_sound=False), None),
    "text that ends in its head": (chunk(b"iTXt", b"XML:com.adobe.xmp\0\0"), "iTXt"),
    "profile that is no zlib data": (chunk(b"iCCP", b"a\0\0junk"), "iCCP"),
    "gamma with a wrong checksum": (chunk(b"gAMA", bytes(4), is_sound=False), "gAMA"),
    **{f"short {kind}": (chunk(kind.encode(), b""), kind) for kind in ("gAMA", "cHRM", "sRGB", "pHYs", "cICP")},
}


@pytest.mark.parametrize(("odd", "left_out"), ODD.values(), ids=ODD)
def test_what_is_damaged_takes_nothing_else_with_it(odd, left_out):
    side, orientation, notes = read_side_data(png(odd, chunk(b"eXIf", camera_block(">"))))
    assert orientation == 6
    assert parsed(side.exif)[0x10F,][2] == b"Camera\0"
    assert notes == ([f"its PNG chunk {left_out} is damaged and was left out"] if left_out else [])
    assert side.profile == (LONG_PROFILE if odd == ODD["long profile"][0] else None)
    assert side.xmp == (LONG_XMP if odd == ODD["long compressed XMP"][0] else None)


def test_xmp_behind_the_pixels_is_found():
    data = png([chunk(b"eXIf", camera_block("<"))], [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")])
    side, orientation, _ = read_side_data(data)
    assert (side.xmp, orientation) == (b"<x/>", 6)


@pytest.mark.parametrize(("marker", "body"), [(0xE0, b"JFIF\0"), (0xEE, b"Adobe\0"), (0xE2, b"ICC_PROFILE\0")])
def test_a_short_segment_of_a_jpeg_takes_nothing_else_with_it(marker, body):
    data = jpeg(exif=b"Exif\0\0" + camera_block("<"))
    data = data[:2] + struct.pack(">HH", 0xFF00 | marker, len(body) + 2) + body + data[2:]
    side, orientation, notes = read_side_data(data)
    assert (orientation, notes) == (6, [])
    assert parsed(side.exif)[0x10F,][2] == b"Camera\0"


def test_of_damaged_exif_the_rest_is_kept():
    block = bytearray(camera_block("<"))
    at = block.index(struct.pack("<HHI", 0x10F, 2, 7))
    struct.pack_into("<I", block, at + 8, 1 << 20)  # the maker lies outside
    side, orientation, notes = read_side_data(jpeg(exif=b"Exif\0\0" + bytes(block)))
    assert orientation == 6
    assert notes == ["a part of its EXIF data is damaged and was left out"]
    expected = parsed(camera_block("<"))
    del expected[0x10F,]
    assert set(parsed(side.exif)) == set(expected)


@pytest.mark.parametrize(
    "said", ['tiff:Orientation="6"', "tiff:Orientation = '6'", "<tiff:Orientation> 6 </tiff:Orientation>"]
)
def test_an_orientation_in_xmp_alone_counts(said):
    side, orientation, _ = read_side_data(jpeg(xmp=f"<x {said}/>".encode()))
    assert orientation == 6
    assert side.xmp == f"<x {said}/>".encode().replace(b"6", b"1")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    assert read_side_data(jpeg(xmp=f"<x {said}/>".encode(), exif=exif))[1] == 1  # EXIF goes before


def test_xmp_in_utf_16_becomes_utf_8():
    file = io.BytesIO()
    text = '<x dc:creator="Jürgen"/>'
    extra = [(700, 1, None, text.encode("utf-16") + b"\0\0", True)]
    tifffile.imwrite(file, PIXELS, photometric="rgb", metadata=None, extratags=extra)
    assert read_side_data(file.getvalue())[0].xmp == text.encode()


def test_the_resolution_of_a_bmp_is_kept():
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "BMP", dpi=(300, 200))
    assert read_side_data(file.getvalue())[0].dpi == pytest.approx((300, 200), rel=1e-3)


@pytest.mark.parametrize(("primaries", "curve", "kept"), [(9, 16, True), (12, 13, True), (1, 13, False), (1, 1, False)])
def test_the_colours_of_avif_become_those_of_png(tmp_path, primaries, curve, kept):
    import imagecodecs

    data = imagecodecs.avif_encode(PIXELS, level=95, primaries=primaries, transfer=curve)
    side = read_side_data(data)[0]
    assert side.png == (((b"cICP", bytes([primaries, curve, 0, 1])),) if kept else ())
    write_pixels(PIXELS, side, tmp_path / "a.png")
    assert (b"cICP" in (tmp_path / "a.png").read_bytes()) == kept
