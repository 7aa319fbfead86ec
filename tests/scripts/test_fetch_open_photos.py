"""Rebuilding the training photographs from packages."""

from __future__ import annotations

import csv
import struct
import zipfile
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mrda_utils.errors import UserError
from scripts import fetch_open_photos
from scripts.fetch_open_photos import largest_jpeg, main


def encoded(image: Image.Image, fmt: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, fmt)
    return buffer.getvalue()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A package of one photograph, and a manifest of two tiles of it."""
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
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(fetch_open_photos, "MANIFEST", manifest)
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


def test_the_shipped_manifest_names_711_tiles():
    with fetch_open_photos.MANIFEST.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["tile"] for row in rows}) == 711
    assert {row["version"].split(" ")[0] for row in rows} == set(fetch_open_photos.CLIENTS)
    assert all(len(bytes.fromhex(row["sha256_of_photo"])) == 32 for row in rows)
