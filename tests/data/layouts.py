"""Layouts that files of photographs have, written by other libraries or by hand: name, bytes, colour, alpha."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from tifffile import TiffFile


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
    yield from odd_tiffs(shape)


def odd_tiffs(shape):
    """Likewise, of other depths, with palettes, and as other programs write them."""
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
