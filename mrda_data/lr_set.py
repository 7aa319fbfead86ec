"""LR sets: a folder of images degraded by a protocol, as FOLDER/<case>/<image>.png, with hashes in FOLDER/SHA256SUMS.

SHA256SUMS has the format of the command sha256sum, which checks it (`sha256sum -c SHA256SUMS`) and can write it. An
LMDB of the folder contains the same files under the same names, and the same SHA256SUMS next to its data.mdb.
"""

from __future__ import annotations

import os
import re
import shutil
from hashlib import sha256
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from mrda_data.images import ImageError
from mrda_data.sources import open_source
from mrda_utils.errors import UserError
from mrda_utils.files import temporary_beside

MANIFEST = "SHA256SUMS"


def lr_file(case: str, image: str) -> str:
    """Where an LR set has the image `image` under the case labelled `case`."""
    return f"{case}/{PurePosixPath(image).with_suffix('.png')}"


class LRSet:
    """`files` of an LR set, a folder or its LMDB; all must exist and have the hashes of the manifest.

    Raises:
        ImageError: names the first that is not so, and how many more there are.
    """

    def __init__(self, root: str, files: list[str]) -> None:
        self.root = root
        manifest = Path(root) / MANIFEST
        try:
            if not manifest.is_file():  # a pipe would be read for ever
                raise FileNotFoundError
            lines = manifest.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            advice = "test.py --save_lr writes such a folder, scripts/prepare_data.py --lmdb packs it"
            raise ImageError(f"dataroot_lq: {manifest} cannot be read; {advice}") from error
        found = (re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+)", line) for line in lines)
        hashes = {match[2]: match[1] for match in found if match}
        self._source = open_source(root)
        self._indices = {file: index for index, file in enumerate(self._source.names)}
        wrong = []
        for file in files:
            if file not in hashes:
                wrong.append(f"{file} is not listed in {MANIFEST}; the set was made of other images or kernels")
            elif file not in self._indices:
                wrong.append(f"{file} is missing")
            elif sha256(self._source.encoded(self._indices[file])).hexdigest() != hashes[file]:
                wrong.append(f"{file} was changed: its SHA-256 is not that of {MANIFEST}")
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise ImageError(f"dataroot_lq: {root}: {wrong[0]}{more}")

    def read(self, file: str) -> np.ndarray:
        """Decode one of the files."""
        return self._source.read(self._indices[file])


def write_lr_set(dataset: Dataset, folder: Path) -> None:
    """Write the LR images of a BenchmarkDataset as 8-bit PNG; `folder` appears when the set is complete.

    Raises:
        ImageError: two images whose names differ in the suffix alone.
        UserError: the file system refused, as it does where `folder` has files; nothing half-written stays behind.
    """
    temporary = temporary_beside(folder)
    hashes: dict[str, str] = {}
    try:
        for index in tqdm(range(len(dataset)), f"LR images of {dataset.opt['name']}", disable=None, leave=False):
            item = dataset[index]
            file = lr_file(item["kernel"], item["lq_path"])
            if file in hashes:
                raise ImageError(f"--save_lr: {item['lq_path']}: another image has the same name but for the suffix")
            image = (item["lq"] * 255).round().byte().permute(1, 2, 0).numpy()
            data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            (temporary / file).write_bytes(data)
            hashes[file] = sha256(data).hexdigest()
        with (temporary / MANIFEST).open("w", encoding="utf-8") as manifest:
            manifest.writelines(f"{digest}  {file}\n" for file, digest in sorted(hashes.items()))
            manifest.flush()
            os.fsync(manifest.fileno())
        temporary.rename(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"--save_lr: {folder} cannot be written ({error.strerror})") from error
        raise
