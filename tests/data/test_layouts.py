"""Every layout that files of photographs have is read as it was written by another library, or refused by its name."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from tifffile import TiffFile

from mrda_data.images import ImageError, decode, decode_rgb8, image_size

SHAPES = [(7, 5), (33, 18), (1, 1)]


def noise(shape, channels=1, bits=8, seed=0):
    kind = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, (*shape, channels), dtype=kind)


def scaled(values, bits):
    """To 8 or 16 bits."""
    kind = np.uint8 if bits <= 8 else np.uint16
    return np.rint(values.astype(np.int64) * np.iinfo(kind).max / (2**bits - 1)).astype(kind)


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def planes(values):
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def pillow(values, kind, mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def opencv(values, suffix):
    order = [0] if values.shape[2] == 1 else [2, 1, 0, 3][: values.shape[2]]
    return cv2.imencode(suffix, np.ascontiguousarray(values[..., order]))[1].tobytes()


def tiffs(shape):
    """Name -> bytes, colour, alpha."""
    for bits in (8, 16):
        limit = 2**bits - 1
        gray, rgb, rgba = (noise(shape, n, bits) for n in (1, 3, 4))
        premultiplied = rgba.copy()
        premultiplied[..., :3] = (rgba[..., :3].astype(np.int64) * rgba[..., 3:] + limit // 2) // limit
        share = np.maximum(rgba[..., 3:].astype(np.float64), 1)
        unmultiplied = np.minimum(np.rint(premultiplied[..., :3].astype(np.float64) * limit / share), limit)
        yield f"gray {bits}", tiff(gray[..., 0], photometric="minisblack"), gray, None
        yield f"white is zero {bits}", tiff(limit - gray[..., 0], photometric="miniswhite"), gray, None
        for planar in ("contig", "separate"):
            for compression in (None, "zlib", "lzw", "packbits", "zstd", "lzma"):
                values = planes(rgb) if planar == "separate" else rgb
                options = {"photometric": "rgb", "planarconfig": planar, "compression": compression}
                yield f"rgb {bits} {planar} {compression}", tiff(values, **options), rgb, None
            for kind, colour in (("unassalpha", rgba[..., :3]), ("assocalpha", unmultiplied)):
                written = premultiplied if kind == "assocalpha" else rgba
                written = planes(written) if planar == "separate" else written
                options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": [kind]}
                yield f"{kind} {bits} {planar}", tiff(written, **options), colour, rgba[..., 3:]
            values = planes(rgba) if planar == "separate" else rgba
            options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": ["unspecified"]}
            yield f"unspecified {bits} {planar}", tiff(values, **options), rgb_of(rgba), None
            five = np.concatenate([rgba[..., :3], gray, rgba[..., 3:]], axis=2)
            values = planes(five) if planar == "separate" else five
            options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": ["unspecified", "unassalpha"]}
            yield f"unspecified and alpha {bits} {planar}", tiff(values, **options), rgb_of(rgba), rgba[..., 3:]
        two = np.concatenate([gray, rgba[..., 3:]], axis=2)
        options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
        yield f"gray with alpha {bits}", tiff(two, **options), gray, rgba[..., 3:]
        options["planarconfig"] = "separate"
        yield f"planes of gray and alpha {bits}", tiff(planes(two), **options), gray, rgba[..., 3:]
        yield f"tiles {bits}", tiff(rgb, photometric="rgb", tile=(16, 16)), rgb, None
        separate = {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16), "compression": "zlib"}
        yield f"tiles of planes {bits}", tiff(planes(rgb), **separate), rgb, None
        yield f"predictor {bits}", tiff(rgb, photometric="rgb", compression="lzw", predictor=True), rgb, None
        for name, values in (("contig", rgb), ("separate", planes(rgb))):
            options = {"photometric": "rgb", "planarconfig": name, "predictor": True, "byteorder": ">"}
            for compression in ("lzw", "zlib", "zstd", "lzma"):
                written = tiff(values, compression=compression, **options)
                yield f"predictor {bits}, big endian {name} {compression}", written, rgb, None
        tags = {258: [bits] * 3, 262: 2, 266: 2, 277: 3}
        yield f"FillOrder 2 {bits}", hand_tiff(shape, bits_reversed(rgb.tobytes()), tags), rgb, None
        yield f"big endian {bits}", tiff(rgb, photometric="rgb", byteorder=">"), rgb, None
        yield f"BigTIFF {bits}", tiff(rgb, photometric="rgb", bigtiff=True), rgb, None
        yield f"one row a strip {bits}", tiff(rgb, photometric="rgb", rowsperstrip=1), rgb, None
        ink = noise(shape, 4, bits).astype(np.int64)
        light = np.rint((limit - ink[..., :3]) * (limit - ink[..., 3:]) / limit)
        yield f"CMYK {bits}", tiff(ink.astype(rgb.dtype), photometric="separated"), light, None
        yield f"OpenCV {bits}", opencv(rgb, ".tif"), rgb, None
        yield f"OpenCV gray {bits}", opencv(gray, ".tif"), gray, None
    for bits in (2, 4, 6, 10, 12, 14):
        values = noise(shape, 1, bits)
        written = tiff(values[..., 0], photometric="minisblack", bitspersample=bits)
        yield f"gray {bits}", written, scaled(values, bits), None
    values = noise(shape, 3, 12)
    yield "rgb 12", tiff(values, photometric="rgb", bitspersample=12), scaled(values, 12), None
    colours = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16)
    index = noise(shape)
    for name, table in (("by 256", colours * 256), ("by 257", colours * 257)):
        options = {"photometric": "palette", "colormap": table}
        yield f"palette {name}", tiff(index[..., 0], **options), rgb_of_index(colours, index), None
    yield (
        "palette of 8 bits",
        tiff(index[..., 0], photometric="palette", colormap=colours),
        rgb_of_index(colours, index),
        None,
    )
    dark = np.zeros_like(colours)
    yield "black palette", tiff(index[..., 0], photometric="palette", colormap=dark), rgb_of_index(dark, index), None
    for bits in (1, 2, 4):
        index, table = noise(shape, 1, bits), colours[:, : 2**bits]
        yield f"palette of {bits} bits a pixel", palette_tiff(index, table, bits), rgb_of_index(table, index), None
    yield from predicted_tiffs(shape)
    bilevel = noise(shape, 1, 1)
    yield "1 bit", pillow(bilevel * 255, "TIFF", "1"), bilevel * 255, None
    yield "1 bit, group 4", pillow(bilevel * 255, "TIFF", "1", compression="group4"), bilevel * 255, None
    yield "Pillow rgba", pillow(noise(shape, 4), "TIFF"), rgb_of(noise(shape, 4)), noise(shape, 4)[..., 3:]
    yield "Pillow gray 16", pillow(noise(shape, 1, 16), "TIFF"), noise(shape, 1, 16), None
    for quality in (90,):
        written = pillow(noise(shape, 3), "TIFF", compression="jpeg", quality=quality)
        with Image.open(io.BytesIO(written)) as image:
            yield "JPEG", written, np.asarray(image.convert("RGB")), None


def predicted_tiffs(shape):
    """Files in which a converter left the tag Predictor, which counts only for some compressions."""
    rgb, bilevel = noise(shape, 3), noise(shape, 1, 1)
    predicted = tiff(rgb, photometric="rgb", compression="lzw", predictor=True)
    for compression in ("packbits", "raw"):
        file = io.BytesIO()
        with Image.open(io.BytesIO(predicted)) as image:
            image.save(file, "TIFF", compression=compression, tiffinfo=image.tag_v2)
        assert TiffFile(io.BytesIO(file.getvalue())).pages[0].tags["Predictor"].value == 2
        yield f"predictor left in {compression}", file.getvalue(), rgb, None
    deep = noise(shape, 3, 16)
    for name, values, written, options in (
        ("planes", rgb, planes(rgb), {"planarconfig": "separate"}),
        ("tiles", rgb, rgb, {"tile": (16, 16), "compression": "packbits"}),
        ("16 bits", deep, deep, {}),
    ):
        data = tiff(written, photometric="rgb", **options)
        at = data.index(struct.pack("<HH", 305, 2))  # Software
        data = data[:at] + struct.pack("<HHII", 317, 3, 1, 2) + data[at + 12 :]
        yield f"predictor left in {name}", data, values, None
    for compression in (None, "group4", "group3", "packbits"):
        options = {"compression": compression} if compression else {}
        written = pillow(bilevel * 255, "TIFF", "1", tiffinfo={317: 2}, **options)
        yield f"predictor left in 1 bit {compression}", written, bilevel * 255, None


def bits_reversed(data):
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()


def rgb_of_index(colours, index):
    return np.moveaxis(colours[:, index[..., 0]], 0, -1)


def hand_tiff(shape, data, tags):
    """Written by hand: one strip, values of tags by their number, None to leave one out."""
    tags = {256: shape[1], 257: shape[0], 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: shape[0], 279: len(data)} | tags
    tags = {tag: np.ravel(value).tolist() for tag, value in sorted(tags.items()) if value is not None}
    start = 8 + len(data) + len(data) % 2
    more, entries = start + 2 + 12 * len(tags) + 4, b""
    extra = b""
    for tag, values in tags.items():
        kind = "H" if max(values) < 65536 else "I"
        written = struct.pack(f"<{len(values)}{kind}", *values)
        if len(written) > 4:
            written, extra = struct.pack("<I", more + len(extra)), extra + written
        entries += struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(values)) + written.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + data + bytes(len(data) % 2) + directory + extra


def palette_tiff(index, colours, bits):
    """Of fewer bits a pixel than tifffile writes; `colours` (3, 2**bits) of 8 bits."""
    digits = np.unpackbits(index, axis=2)[..., 8 - bits :].reshape(len(index), -1)
    data = np.packbits(digits, axis=1).tobytes()
    return hand_tiff(index.shape, data, {258: bits, 262: 3, 320: colours.astype(int) * 257})


def rgb_of(rgba):
    return rgba[..., :3]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_rows(values, bits):
    """(H, W, C) packed row by row, without filters."""
    if bits < 8:
        digits = np.unpackbits(values, axis=2)[..., 8 - bits :].reshape(len(values), -1)
        rows = np.packbits(digits, axis=1)
    else:
        rows = values.astype(">u2" if bits == 16 else "u1").reshape(len(values), -1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


ADAM7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))


def png(values, bits, key=None, *, interlaced=False, palette=None):
    """Written by hand: gray, RGB or indices; without filters."""
    height, width, channels = values.shape
    passes = [values[top::down, left::right] for top, down, left, right in ADAM7] if interlaced else [values]
    lines = b"".join(png_rows(part, bits) for part in passes if part.size)
    colour = 3 if palette is not None else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    table = b"" if palette is None else chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    transparent = b"" if key is None else chunk(b"tRNS", struct.pack(f">{channels}H", *key))
    parts = chunk(b"IHDR", header) + table + transparent + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def pngs(shape):
    for bits in (1, 2, 4, 8, 16):
        gray = noise(shape, 1, bits)
        key = int(gray[0, 0, 0])
        limit = 65535 if bits == 16 else 255
        alpha = np.where(gray == key, 0, limit)
        yield f"gray {bits}", png(gray, bits), scaled(gray, bits), None
        yield f"gray {bits} with a transparent one", png(gray, bits, [key]), scaled(gray, bits), alpha
        yield f"interlaced gray {bits}", png(gray, bits, interlaced=True), scaled(gray, bits), None
        written = png(gray, bits, [key], interlaced=True)
        yield f"interlaced gray {bits} with a transparent one", written, scaled(gray, bits), alpha
        if bits <= 8:
            table = noise((2**bits,), 3)
            written = png(gray, bits, interlaced=True, palette=table)
            yield f"interlaced palette of {bits} bits", written, table[gray[..., 0]], None
    for bits in (8, 16):
        rgb = noise(shape, 3, bits)
        key = [int(value) for value in rgb[0, 0]]
        alpha = np.where((rgb == rgb[0, 0]).all(axis=2, keepdims=True), 0, 2**bits - 1)
        yield f"rgb {bits}", png(rgb, bits), rgb, None
        yield f"rgb {bits} with a transparent one", png(rgb, bits, key), rgb, alpha
        rgba = noise(shape, 4, bits)
        yield f"interlaced rgb {bits}", png(rgb, bits, interlaced=True), rgb, None
        yield f"interlaced rgba {bits}", png(rgba, bits, interlaced=True), rgba[..., :3], rgba[..., 3:]
        two = noise(shape, 2, bits)
        yield f"interlaced gray with alpha {bits}", png(two, bits, interlaced=True), two[..., :1], two[..., 1:]
        yield f"OpenCV rgba {bits}", opencv(rgba, ".png"), rgba[..., :3], rgba[..., 3:]
        yield f"OpenCV gray {bits}", opencv(noise(shape, 1, bits), ".png"), noise(shape, 1, bits), None
        yield f"imagecodecs gray with alpha {bits}", imagecodecs.png_encode(two), two[..., :1], two[..., 1:]
    palette = Image.fromarray(noise(shape, 3)).quantize(13)
    colours = np.asarray(palette.convert("RGB"))
    for name, options in {
        "": {},
        "with a transparent one": {"transparency": 0},
        "with alphas": {"transparency": bytes(range(0, 130, 10))},
        "of 4 bits": {"bits": 4},
    }.items():
        file = io.BytesIO()
        palette.save(file, "PNG", **options)
        alpha = None
        if name.startswith("with"):
            table = np.full(256, 255)
            table[:13] = np.arange(0, 130, 10) if "alphas" in name else [0, *[255] * 12]
            alpha = table[np.asarray(palette)][..., None]
        yield f"palette {name}", file.getvalue(), colours, alpha


def pnms(shape):
    size = b"%d %d" % shape[::-1]
    for highest in (1, 15, 100, 255, 256, 1023, 4095, 65535):
        for channels, kind in ((1, b"P5"), (3, b"P6")):
            values = np.random.default_rng(2).integers(0, highest + 1, (*shape, channels))
            raw = values.astype(">u2" if highest > 255 else "u1").tobytes()
            limit = 255 if highest <= 255 else 65535
            expected = np.rint(values * limit / highest)
            written = b"%s\n# from a camera\n%s\n%d\n" % (kind, size, highest) + raw
            yield f"{kind.decode()} {highest}", written, expected, None
            windows = b"%s\r\n%s\r\n%d\r\n" % (kind, size, highest) + raw
            yield f"{kind.decode()} {highest}, CR LF", windows, expected, None
            plain = {b"P5": b"P2", b"P6": b"P3"}[kind]
            text = " ".join(map(str, values.ravel())).encode()
            yield f"{plain.decode()} {highest}", b"%s %s\t%d\n" % (plain, size, highest) + text, expected, None
    bits = noise(shape, 1, 1)
    yield "P1", b"P1 " + size + b"\n" + "".join(map(str, bits.ravel())).encode(), (1 - bits) * 255, None
    yield "P4", b"P4 " + size + b"\n" + np.packbits(bits[..., 0], axis=1).tobytes(), (1 - bits) * 255, None
    yield "Pillow", pillow(noise(shape, 3), "PPM"), noise(shape, 3), None
    yield "OpenCV 16", opencv(noise(shape, 3, 16), ".ppm"), noise(shape, 3, 16), None


def bmp(values, bits, masks=(), version=40):
    """Written by hand; rows from below, `values` already packed: (H, W) integers of so many bits."""
    height, width = values.shape
    rows = b""
    for row in values[::-1]:
        data = row.astype("<u2" if bits == 16 else "<u4").tobytes()
        rows += data + bytes(-len(data) % 4)
    fields = b"".join(struct.pack("<I", mask) for mask in masks)
    more = fields if version == 40 else (fields + bytes(version - 40 - len(fields)))
    header = struct.pack("<IiiHHIIiiII", version, width, height, 1, bits, 3 if masks else 0, len(rows), 0, 0, 0, 0)
    header += more
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows


def bmps(shape):
    rgb, rgba = noise(shape, 3), noise(shape, 4)
    wide = [channel.astype(np.uint32) for channel in np.moveaxis(rgba, -1, 0)]
    packed = wide[2] | wide[1] << 8 | wide[0] << 16
    usual = (0xFF0000, 0xFF00, 0xFF)
    yield "Pillow", pillow(rgb, "BMP"), rgb, None
    yield "Pillow gray", pillow(noise(shape), "BMP"), noise(shape), None
    yield "Pillow 1 bit", pillow(noise(shape, 1, 1) * 255, "BMP", "1"), noise(shape, 1, 1) * 255, None
    palette = Image.fromarray(rgb).quantize(13)
    file = io.BytesIO()
    palette.save(file, "BMP")
    yield "palette", file.getvalue(), np.asarray(palette.convert("RGB")), None
    yield "32 bits without mask", bmp(packed, 32), rgba[..., :3], None
    yield "32 bits with masks of colour", bmp(packed, 32, usual), rgba[..., :3], None
    yield "32 bits with masks of 0", bmp(packed, 32, (0, 0, 0)), rgba[..., :3], None
    yield "32 bits with masks, none of alpha", bmp(packed, 32, (*usual, 0), 108), rgba[..., :3], None
    with_alpha = bmp(packed | wide[3] << 24, 32, (*usual, 0xFF000000), 108)
    yield "32 bits with alpha", with_alpha, rgba[..., :3], rgba[..., 3:]
    small = [noise(shape, 1, bits, seed).astype(np.uint32)[..., 0] for bits, seed in ((5, 1), (6, 2), (5, 3))]
    for name, written in {
        "565": bmp(small[0] << 11 | small[1] << 5 | small[2], 16, (0xF800, 0x7E0, 0x1F)),
        "555": bmp(small[0] << 10 | (small[1] & 31) << 5 | small[2], 16),
    }.items():
        with Image.open(io.BytesIO(written)) as image:  # how 5 bits become 8 is everybody's own choice
            yield name, written, np.asarray(image.convert("RGB")), None

    for bits in (4, 8):
        index = noise(shape, 1, bits)[..., 0]
        yield f"run-length encoded, {bits} bits", run_length_bmp(index, bits), colours_of_bmp(bits)[index], None


def colours_of_bmp(bits):
    return np.random.default_rng(bits).integers(0, 256, (2**bits, 3), dtype=np.uint8)


def run_length_bmp(index, bits):
    """Written by hand: the first half of a row as runs of one pixel, the rest as it is where it has 3 or more."""
    height, width = index.shape
    data = b""
    for row in index[::-1].tolist():
        split = width // 2 if width - width // 2 >= 3 else width
        data += b"".join(bytes([1, value * 17 if bits == 4 else value]) for value in row[:split])
        if rest := row[split:]:
            pairs = [*rest, 0] if len(rest) % 2 else rest
            packed = (
                bytes(rest) if bits == 8 else bytes(a << 4 | b for a, b in zip(pairs[::2], pairs[1::2], strict=True))
            )
            data += bytes([0, len(rest)]) + packed + bytes(len(packed) % 2)
        data += b"\0\0"
    data += b"\0\1"
    table = np.pad(colours_of_bmp(bits)[:, ::-1], ((0, 0), (0, 1))).tobytes()
    start = 54 + len(table)
    head = struct.pack("<2sIIIIiiHHIIiiII", b"BM", start + len(data), 0, start, 40, width, height, 1, bits, *(
        (1 if bits == 8 else 2), len(data), 2835, 2835, 2**bits, 0))  # fmt: skip
    return head + table + data


def delta_bmp():
    """Run-length encoded; ends with a delta and the end of the picture instead of the pixels."""
    data = run_length_bmp(noise((6, 7))[..., 0], 8)
    return data[:-20] + b"\0\2\1\0\0\1" + bytes(14)


def cmyk_profile():
    """An ICC profile, written by hand: L* is 100 of paper, 50 of cyan, 0 of black; no ink has a hue."""
    tone = bytes(range(256))
    corners = bytes(8 * [*[255, 128, 128], *[0, 128, 128]])  # without and with black, of each other mixture
    corners = corners[:24] + corners[24:].replace(b"\xff", b"\x80")  # the second half has cyan
    unit = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    table = b"mft1\0\0\0\0\4\3\2\0" + unit + 4 * tone + corners + 3 * tone
    white = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    head = struct.pack(">IIII", 144 + len(table), 0, 0x2400000, 0x70727472) + b"CMYKLab " + bytes(12) + b"acsp"
    return head.ljust(68, b"\0") + white + bytes(48) + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "TIFF of 16 bits"])
def test_cmyk_is_converted_by_its_profile(kind):
    ink = np.zeros((8, 16, 4), np.uint8)
    ink[:, 8:, 0] = 255
    if kind == "JPEG":
        file = io.BytesIO()
        Image.fromarray(ink, "CMYK").save(file, "JPEG", quality=100, icc_profile=cmyk_profile())
        data = file.getvalue()
    else:
        values = ink if kind == "TIFF" else ink.astype(np.uint16) * 257
        data = tiff(values, photometric="separated", iccprofile=cmyk_profile())
    pixels = decode(np.frombuffer(data, np.uint8), "x")
    assert pixels.notes == ()
    values = pixels.colour / np.iinfo(pixels.colour.dtype).max
    np.testing.assert_allclose(values[:, :8], 1, atol=0.005)
    luminance = ((50 + 16) / 116) ** 3  # of L* = 50
    np.testing.assert_allclose(values[:, 8:], 1.055 * luminance ** (1 / 2.4) - 0.055, atol=0.02)  # in sRGB


@pytest.mark.parametrize("profile", [cmyk_profile()[:400], b"junk" * 99, None, ImageCms.ImageCmsProfile(
    ImageCms.createProfile("sRGB")).tobytes()])  # fmt: skip
def test_cmyk_without_a_sound_profile_is_approximate_and_says_so(profile):
    ink = noise((8, 8), 4)
    options = {} if profile is None else {"iccprofile": profile}
    pixels = decode(np.frombuffer(tiff(ink, photometric="separated", **options), np.uint8), "x")
    assert [note.endswith("the colours are approximate") for note in pixels.notes] == [True]
    np.testing.assert_array_equal(pixels.colour, np.asarray(Image.fromarray(ink, "CMYK").convert("RGB")))


def jpegs_and_webps(shape):
    rgb = noise(shape, 3)
    ink = noise(shape, 4)
    ycck = imagecodecs.jpeg8_encode(ink, colorspace="CMYK", outcolorspace="YCCK", level=100)
    with Image.open(io.BytesIO(ycck)) as image:
        yield "JPEG YCCK", ycck, np.asarray(image.convert("RGB")), None
    for mode in ("L", "RGB", "CMYK"):
        for options in ({}, {"progressive": True}, {"subsampling": 0}):
            written = pillow(rgb, "JPEG", mode, **options)
            with Image.open(io.BytesIO(written)) as image:
                expected = np.asarray(image if mode == "L" else image.convert("RGB"))
            yield f"JPEG {mode} {options}", written, expected.reshape(*shape, -1), None
    written = pillow(rgb, "JPEG", keep_rgb=True)
    with Image.open(io.BytesIO(written)) as image:
        yield "JPEG of plain RGB", written, np.asarray(image), None
    yield "WebP", pillow(rgb, "WEBP", lossless=True), rgb, None
    rgba = noise(shape, 4)
    yield "WebP with alpha", pillow(rgba, "WEBP", lossless=True, exact=True), rgba[..., :3], rgba[..., 3:]


CONTAINERS = {"TIFF": tiffs, "PNG": pngs, "PNM": pnms, "BMP": bmps, "JPEG and WebP": jpegs_and_webps}
LAYOUTS = [(container, case[0]) for container, cases in CONTAINERS.items() for case in cases((3, 4))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_layout_is_read_exactly(container, shape, capfd, caplog):
    wrong = []
    for name, data, colour, alpha in CONTAINERS[container](shape):
        try:
            pixels = decode(np.frombuffer(data, np.uint8), name)
        except ImageError as error:
            wrong.append(str(error))
            continue
        if not np.array_equal(pixels.colour, colour):
            wrong.append(f"{name}: colours {pixels.colour.shape} {pixels.colour.dtype}")
        if (alpha is None) != (pixels.alpha is None) or not (alpha is None or np.array_equal(pixels.alpha, alpha)):
            wrong.append(f"{name}: alpha")
    assert wrong == []
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []  # outside of a test they would be printed


def test_there_are_many_layouts():
    assert len(set(LAYOUTS)) == len(LAYOUTS) > 130


def apng():
    frames = [Image.fromarray(noise((4, 5), 3, 8, seed)) for seed in (0, 1)]
    return {kind: saved(frames, kind) for kind in ("PNG", "GIF", "WEBP", "TIFF")}


def saved(frames, kind):
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def refused():
    shape = (6, 7)
    rgb, gray = noise(shape, 3), noise(shape)[..., 0]
    several = apng()
    cfa = tiff(gray, photometric="cfa", extratags=[(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)])
    return {
        "float": (tiff(rgb.astype(np.float32), photometric="rgb"), "32-bit ieeefp samples"),
        "half": (tiff(rgb.astype(np.float16), photometric="rgb"), "16-bit ieeefp samples"),
        "signed": (tiff(gray.astype(np.int16), photometric="minisblack"), "16-bit int samples"),
        "32 bits": (tiff(gray.astype(np.uint32), photometric="minisblack"), "32-bit uint samples"),
        "complex": (tiff(gray.astype(np.complex64), photometric="minisblack"), "64-bit complexieeefp samples"),
        "CIELab": (tiff(rgb, photometric="cielab"), "colours CIELAB"),
        "YCbCr": (tiff(rgb, photometric="ycbcr"), "YCbCr colours that are no JPEG"),
        "old-style JPEG": (
            tiff_tag(tiff(rgb, photometric="ycbcr"), 259, 6),
            r"a TIFF of old-style JPEG \(compression 6\)",
        ),
        "ThunderScan": (
            tiff_tag(tiff(gray, photometric="minisblack"), 259, 32809),
            "a TIFF of compression THUNDERSCAN",
        ),
        "no compression known": (
            tiff_tag(tiff(gray, photometric="minisblack"), 259, 4711),
            "a TIFF of compression 4711",
        ),
        "no meaning": (hand_tiff(shape, gray.tobytes(), {262: None}), "a TIFF without PhotometricInterpretation"),
        "mosaic": (cfa, "a raw photograph; develop it"),
        "volume": (tiff(np.stack([gray] * 16), photometric="minisblack", volumetric=True, tile=(16, 16, 16)), "layers"),
        "pages": (several["TIFF"], "a TIFF of 2 pictures"),
        "ImageJ stack": (imagej(np.stack([gray] * 3)), "a TIFF of 3 pictures"),
        "APNG": (several["PNG"], "an animated PNG of 2 pictures"),
        "animated WebP": (several["WEBP"], "an animated WEBP of 2 pictures"),
        "animated GIF": (several["GIF"], "an animated GIF of 2 pictures"),
        "GIF": (pillow(rgb, "GIF"), "a GIF, no PNG"),
        "two PNM": (2 * pillow(rgb, "PPM"), "a PNM of several pictures"),
        "PNM above maxval": (b"P5 2 1 7\n\x07\x08", "values above its maxval"),
        "PNM without maxval": (b"P5 2 1 0\n\x00\x00", "maxval 0"),
        "12-bit JPEG": (imagecodecs.jpeg8_encode(noise(shape, 3, 12), bitspersample=12), "a JPEG of 12 bits"),
        "BMP with a delta": (
            delta_bmp(),
            "a run-length encoded BMP that is damaged or skips pixels; convert it to PNG",
        ),
        "BMP of negative width": (
            pillow(rgb, "BMP").replace(b"\7\0\0\0", b"\xf9\xff\xff\xff"),
            "its width is negative",
        ),
        "BMP of odd masks": (bmp(noise(shape, 1, 16)[..., 0], 16, (0xF000, 0xF00, 0xF0)), "a BMP of a layout"),
    }


def tiff_tag(data, tag, value):
    """The file with another value, of 16 bits, in a tag that it has."""
    at = data.index(struct.pack("<HHI", tag, 3, 1)) + 8
    return data[:at] + struct.pack("<H", value) + data[at + 2 :]


def imagej(values):
    file = io.BytesIO()
    tifffile.imwrite(file, values, imagej=True)
    return file.getvalue()


@pytest.mark.parametrize(("data", "message"), refused().values(), ids=refused())
def test_other_layouts_are_refused_by_their_name(data, message):
    with pytest.raises(ImageError, match=rf"^x: .*{message}") as caught:
        decode(np.frombuffer(data, np.uint8), "x")
    assert "\n" not in str(caught.value)


def test_a_thumbnail_is_no_second_picture():
    rgb, small = noise((90, 60), 3), noise((9, 6), 3)
    for flags in ((0, 1), (1, 0), (0, 0)):
        file = io.BytesIO()
        pictures = [small, rgb] if flags[0] else [rgb, small]
        with tifffile.TiffWriter(file) as writer:
            for values, flag in zip(pictures, flags, strict=True):
                writer.write(values, photometric="rgb", metadata=None, subfiletype=flag)
        np.testing.assert_array_equal(decode_rgb8(np.frombuffer(file.getvalue(), np.uint8), "x"), rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_applied(orientation):
    rgb = noise((7, 5), 3)
    data = tiff(rgb, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    exif = Image.Exif()
    exif[274] = orientation
    expected = rgb
    if orientation > 1:
        turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
        expected = np.asarray(Image.fromarray(rgb).transpose(Image.Transpose(turned)))
    np.testing.assert_array_equal(decode_rgb8(np.frombuffer(data, np.uint8), "x"), expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_is_upright(orientation):
    rgb = noise((7, 5), 3)
    data = np.frombuffer(tiff(rgb, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]), np.uint8)
    np.testing.assert_array_equal(decode_rgb8(data, "x"), rgb)
    assert image_size(data, "x") == (7, 5)


@pytest.mark.parametrize("kinds", [[2], [1], [0], [2, 0], [0, 2, 1]], ids=str)
def test_extra_samples_that_are_not_there_are_none(kinds):
    rgb = noise((7, 5), 3)
    tags = {258: [8, 8, 8], 262: 2, 277: 3, 338: kinds}
    pixels = decode(np.frombuffer(hand_tiff(rgb.shape, rgb.tobytes(), tags), np.uint8), "x")
    np.testing.assert_array_equal(pixels.colour, rgb)
    assert pixels.alpha is None
    assert pixels.notes == ()


def motion_photo(rgb):
    """A JPEG with a film behind it, in which there are as many scans as anybody likes."""
    return pillow(rgb, "JPEG") + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 5000


def test_what_lies_behind_a_picture_does_not_count():
    rgb = noise((20, 30), 3)
    data = motion_photo(rgb)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_rgb8(np.frombuffer(data, np.uint8), "x"), np.asarray(image))


def cut_jpegs():
    """JPEGs that end in order before their picture does, and one with a marker in it."""
    values = noise((90, 120), 3)
    modes = {"gray": ("L", {}), "RGB": ("RGB", {}), "CMYK": ("CMYK", {})}
    modes |= {"progressive": ("RGB", {"progressive": True}), "restarts": ("RGB", {"restart_marker_blocks": 1})}
    for name, (mode, options) in modes.items():
        data = pillow(values, "JPEG", mode, quality=95, **options)
        yield name, data[: len(data) // 2 + 300] + b"\xff\xd9"
        yield f"{name}, the end", data[:-200] + b"\xff\xd9"
    data = pillow(values, "JPEG", quality=95)
    start = data.index(b"\xff\xda")
    yield "marker", data[: start + 2000] + b"\xff\xe3\0\4" + data[start + 2004 :]
    data = tiff(values, photometric="ycbcr", compression="jpeg", rowsperstrip=48)
    strip = TiffFile(io.BytesIO(data)).pages[0].dataoffsets[1]
    yield "TIFF", data[: strip + 1000] + b"\xff\xd9" + data[strip + 1002 :]


@pytest.mark.parametrize("data", dict(cut_jpegs()).values(), ids=dict(cut_jpegs()))
def test_a_jpeg_that_ends_too_early_is_refused(data):
    with pytest.raises(ImageError, match="a part of the picture is missing"):
        decode(np.frombuffer(data, np.uint8), "x")


@pytest.mark.parametrize("stray", [b"\xff", b"\xff" * 9, b"\0" * 5, b"\xff\0", b"\xff\0\1", b"ab\xff"], ids=repr)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_bytes_that_libjpeg_skips_do_no_harm(mode, stray):
    """Between the segments, and between the data and the end, where cameras leave some."""
    data = pillow(noise((20, 30), 3), "JPEG", mode)
    places = [data.index(marker) for marker in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda")]
    for place in (*places, len(data) - 2):
        filled = data[:place] + stray + data[place:]
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(decode_rgb8(np.frombuffer(filled, np.uint8), "x"), expected)


def test_a_jpeg_with_two_sizes_is_refused():
    data = pillow(noise((20, 30), 3), "JPEG")
    start = data.index(b"\xff\xc0")
    frame = bytearray(data[start : start + 19])
    frame[5:9] = struct.pack(">HH", 20_000, 20_000)
    for doubled in (data[:start] + frame + data[start:], data[: start + 19] + frame + data[start + 19 :]):
        with pytest.raises(ImageError, match="cannot be decoded"):
            decode(np.frombuffer(doubled, np.uint8), "x")


@pytest.mark.timeout(20)
def test_fill_bytes_and_directories_without_end_take_no_time():
    data = pillow(noise((20, 30), 3), "JPEG")
    filled = data[:2] + b"\xff" * 5_000_000 + data[3:]
    assert decode_rgb8(np.frombuffer(filled, np.uint8), "x").shape == (20, 30, 3)
    sides = b"".join(struct.pack("<HHII", tag, 3, 1, 1) for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279))
    starts = range(8, 8 + 20_000 * 114, 114)  # of directories of nine entries
    directories = b"".join(struct.pack("<H", 9) + sides + struct.pack("<I", start + 114) for start in starts)
    with pytest.raises(ImageError, match="a TIFF of more than 16 pictures"):
        decode(np.frombuffer(b"II*\0" + struct.pack("<I", 8) + directories, np.uint8), "x")


def test_the_size_is_that_of_the_header_that_the_decoder_reads():
    """Comments and white space of a PNM, where decoders disagree."""
    data = b"P5\n#1 1\n3 #\r\n2\n255\n" + bytes(range(6))
    np.testing.assert_array_equal(decode(np.frombuffer(data, np.uint8), "x").colour[..., 0], [[0, 1, 2], [3, 4, 5]])


def test_heic_and_avif_are_read(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    rgb = np.tile(noise((4, 4), 3), (8, 10, 1))
    for kind in ("HEIF", "AVIF"):
        data = pillow(rgb, kind, quality=100)
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(decode_rgb8(np.frombuffer(data, np.uint8), "x"), np.asarray(image))


def test_photographs_of_phones_are_upright(tmp_path):
    from mrda_inference.image_file import read_picture

    rows, columns = np.mgrid[:48, :64]
    image = Image.fromarray(np.dstack([rows * 5, columns * 3, rows + columns]).astype(np.uint8))
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Phone"
    image.save(tmp_path / "a.avif", quality=100, exif=exif)
    picture = read_picture(tmp_path / "a.avif")
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert picture.colour.shape == (64, 48, 3)
    assert np.abs(picture.colour - expected).max() < 12
    assert b"Phone" in picture.side.exif


def test_a_reduced_depth_is_said(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (16, 12), noise((12, 16), 3, 16).tobytes()).save(file, quality=90)
    pixels = decode(np.frombuffer(file.getvalue(), np.uint8), "x")
    assert pixels.colour.shape == (12, 16, 3)
    assert pixels.notes == ("its 10 bits a colour were read as 8",)


def test_without_pillow_heif_a_heic_photograph_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r'pillow-heif is not installed; pip install "\.\[heif\]"'):
        decode(np.frombuffer(b"\0\0\0\x18ftypheic" + bytes(40), np.uint8), "x")
