from __future__ import annotations

import os
from collections import Counter

import pytest
from PIL import Image

from mrda_data import PairedDataset
from mrda_data.folders import list_images
from mrda_data.images import ImageError
from mrda_data.pairs import pair_names
from mrda_pipeline.conditions import images_digest


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_photographs_of_phones_and_macs_are_found_and_the_rest_is_counted(tmp_path):
    photographs = ["IMG_1.jpg", "IMG_2.JFIF", "IMG_3.HEIC", "b.jpe", "c.avif", "sub/d.pnm"]
    touch(tmp_path, *photographs, "x.gif", "y.GIF", "notes.txt", "README")
    touch(tmp_path, "._IMG_1.jpg", "__MACOSX/._IMG_1.jpg", "__MACOSX/e.jpg", "Thumbs.db", ".hidden/f.png", ".DS_Store")
    listing = list_images(tmp_path)
    assert listing.names == photographs
    assert listing.others == Counter({".gif": 2, ".txt": 1, "without suffix": 1})
    assert listing.left_out() == "left out: 2 .gif, 1 .txt, 1 without suffix"


@pytest.mark.timeout(20)
def test_links_to_folders_are_followed_but_each_folder_once(tmp_path):
    touch(tmp_path, "photos/a/x.png", "elsewhere/y.png", "elsewhere/deep/z.png")
    (tmp_path / "photos/0_again").symlink_to(tmp_path / "photos/a")  # sorts before the folder itself
    (tmp_path / "photos/a/up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/others").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "photos")
    assert list_images(tmp_path / "photos").names == ["a/x.png", "others/deep/z.png", "others/y.png"]


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    touch(tmp_path, "a.gif", "b.mp4")
    with pytest.raises(ImageError, match=r"no image in it .*; left out: 1 \.gif, 1 \.mp4"):
        list_images(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):
        if path == tmp_path / "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match=r"closed: cannot be listed \(Permission denied\)"):
        list_images(tmp_path)


# --------------------------------------------------------------------------------------------------------------- pairs
@pytest.mark.parametrize(
    ("gt", "lq", "template", "expected"),
    [
        ("1.png 10.png 2.png", "10x4.png 1x4.png 2x4.png", None, "1x4.png 10x4.png 2x4.png"),
        ("1.png 10.png 2.png", "10x4.png 1x4.png 2x4.png", "{name}x4", "1x4.png 10x4.png 2x4.png"),
        ("a.png b.jpg", "b.png a.tif", None, "a.tif b.png"),
        ("Canon_1_HR.png Nikon_1_HR.png", "Canon_1_LR4.png Nikon_1_LR4.png", None, "Canon_1_LR4.png Nikon_1_LR4.png"),
        ("s/1.png s/11.png", "s/LR_1.png s/LR_11.png", "LR_{name}", "s/LR_1.png s/LR_11.png"),
        ("0801.png", "0801x4.png", None, "0801x4.png"),
        ("1.png 2.png", "1.png 1x4.png 2.png 2x4.png", None, "HR image .*|LR image 1x4.png has no HR image"),
        ("a.png b.png c.png", "a.png c.png", None, r"HR image b.png has no LR image b\.\* \(3 HR and 2 LR images\)"),
        ("a.png b.png", "ax4.png cx4.png", None, r"HR image a.png has no LR image a\.\*"),
        ("a.png b.png", "ax4.png cx4.png", "{name}x4", r"HR image b.png has no LR image bx4\.\*"),
        ("a.png", "b.png", None, r"HR image a.png has no LR image"),
        ("a.png a.jpg", "a.png b.png", None, "a.png and a.jpg differ in their suffix alone"),
        ("1.png 2.png 3.png", "2.png 3.png 4.png", None, r"HR image 1.png has no LR image 1\.\*"),
    ],
)
def test_pairs_go_by_names_or_the_first_without_partner_is_named(gt, lq, template, expected):
    gt, lq = gt.split(), lq.split()
    if (" " in expected and "image" in expected) or "differ" in expected:
        with pytest.raises(ImageError, match=expected):
            pair_names(gt, lq, template)
    else:
        assert pair_names(gt, lq, template) == list(zip(gt, expected.split(), strict=True))


def test_processes_compare_both_images_of_a_pair(tmp_path):
    for name in ("a", "b"):
        for folder, side in (("hr", 16), ("lr", 4)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (side, side), "teal").save(tmp_path / folder / f"{name}.png")
    opt = {"name": "x", "scale": 4, "dataroot_gt": str(tmp_path / "hr"), "dataroot_lq": str(tmp_path / "lr")}
    first = images_digest(PairedDataset(opt))
    assert images_digest(PairedDataset(opt)) == first
    Image.new("RGB", (4, 4), "red").save(tmp_path / "lr/b.png")
    assert images_digest(PairedDataset(opt)) != first
