from __future__ import annotations

import os
from collections import Counter

import pytest
from PIL import Image

from mrda_data import BenchmarkDataset, GTDataset, LQDataset, PairedDataset
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


def test_links_that_lead_nowhere_are_counted(tmp_path):
    touch(tmp_path, "a.png")
    for name, target in (("b.png", "b.png"), ("c", "c"), ("d.jpg", "missing.jpg"), ("e", "x" * 300)):
        (tmp_path / name).symlink_to(target)
    listing = list_images(tmp_path)
    assert listing.names == ["a.png"]
    assert listing.left_out() == "left out: 4 unreachable"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes in folders")
def test_pipes_and_devices_are_counted(tmp_path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.jpg").symlink_to("/dev/null")
    listing = list_images(tmp_path)
    assert listing.names == ["a.png"]
    assert listing.left_out() == "left out: 2 pipe or device"


def test_a_suffix_does_not_steer_the_terminal(tmp_path):
    touch(tmp_path, "a.png", "x.\x1b[2J", os.fsdecode(b"y.\xe9"))
    assert list_images(tmp_path).left_out() == r"left out: 1 .\x1b[2j, 1 .\udce9"


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


def test_a_folder_that_cannot_be_reached_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in (("loop", "Too many levels of symbolic links"), ("x" * 300, "File name too long")):
        with pytest.raises(ImageError, match=rf"{name}: cannot be listed \({reason}\)"):
            list_images(tmp_path / name)
    with pytest.raises(ImageError, match="missing: no such folder"):
        list_images(tmp_path / "missing")


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
        ("a.png b.png", "ax4.png cx4.png", None, r"HR image b.png has no LR image bx4\.\*"),
        ("0.png 1.png 2.png", "0x4.png 1x4.png 2x4.png 3x4.png", None, "LR image 3x4.png has no HR image"),
        ("0801.png 0802.png", "0801x4.png 0803x4.png", None, r"HR image 0802.png has no LR image 0802x4\.\*"),
        ("1_HR.png 2_HR.png 3_HR.png", "1_LR4.png 3_LR4.png", None, r"HR image 2_HR.png has no LR image 2_LR4\.\*"),
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


@pytest.mark.parametrize(
    ("gt", "lq"),
    [
        ("0801 0802 0803", "0811 0812 0813"),
        ("f000 f001", "f010 f011"),
        ("10 20", "01 02"),
        ("1", "10"),
        ("10", "1"),
        ("x1", "x10"),
        ("4", "0801x4"),
        ("1 1a", "2 2a"),
        ("s1_a s1_b", "s2_a s2_b"),
        ("left_07 right_07", "left_08x4 right_08x4"),
    ],
)
def test_other_frames_are_no_pairs(gt, lq):
    with pytest.raises(ImageError, match="has no LR image"):
        pair_names(*([f"{stem}.png" for stem in stems.split()] for stems in (gt, lq)))


@pytest.mark.parametrize(
    ("gt", "lq"),
    [
        ("1", "1x4"),
        ("photo", "photo_LR4"),
        ("0801 0802", "0801x4 0802x4"),
        ("img_001_HR img_002_HR", "img_001_LRBI_x4 img_002_LRBI_x4"),
        ("DIV2K_0801 DIV2K_0802", "0801x4 0802x4"),
        ("a_x1 b_x1", "a_x4 b_x4"),
        ("im9_SRF_2_HR im10_SRF_2_HR", "im9_SRF_2_LR im10_SRF_2_LR"),
    ],
)
def test_a_pattern_may_have_a_scale_or_other_numbers_of_one_side(gt, lq):
    names = [[f"{stem}.png" for stem in stems.split()] for stems in (gt, lq)]
    assert pair_names(*names) == list(zip(*names, strict=True))


@pytest.mark.parametrize("template", ["", "x4", "LR/{name}", "{name}{name}", "{scale}{name}"])
def test_a_template_that_is_none_is_named(template):
    with pytest.raises(ImageError, match=r"^lq_template '.*': must contain \{name\} once and no slash"):
        pair_names(["a.png"], ["x4.png"], template)


@pytest.mark.parametrize("kind", [BenchmarkDataset, LQDataset, PairedDataset])
@pytest.mark.parametrize("most", [0, -1])
def test_no_image_at_all_is_no_data_set(tmp_path, kind, most):
    for name, side in (("hr/a.png", 64), ("hr/b.png", 64), ("lr/a.png", 16), ("lr/b.png", 16)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (side, side)).save(tmp_path / name)
    opt = {"name": "x", "scale": 4, "protocol": "bicubic", "kernel_size": 21, "dataroot_gt": str(tmp_path / "hr")}
    if kind is not BenchmarkDataset:
        opt["dataroot_lq"] = str(tmp_path / "lr")
    assert len(kind({**opt, "max_images": 1})) == 1
    with pytest.raises(ImageError, match=f"^x: max_images {most}: must be at least 1$"):
        kind({**opt, "max_images": most})


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


@pytest.mark.parametrize("folders", [["a"], ["a", "b"]])
def test_images_that_have_moved_with_their_folders_are_the_same(tmp_path, folders):
    for folder in folders:
        for number, colour in enumerate(("teal", "red")):
            path = tmp_path / "old" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), colour).save(path)

    def digest(root, names):
        dataset = {"dataroot_gt": [str(tmp_path / root / name) for name in names], "gt_size": 16}
        return images_digest(GTDataset({**dataset, "use_hflip": True, "use_rot": True, "manual_seed": 0}))

    before = digest("old", folders)
    (tmp_path / "old").rename(tmp_path / "new")
    assert digest("new", folders) == before
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "new" / folders[-1] / "1.png")
    assert digest("new", folders) != before
