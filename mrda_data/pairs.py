"""Which LR image belongs to which HR image, by their names."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from mrda_data.images import ImageError


def pair_names(gt_names: list[str], lq_names: list[str], template: str | None = None) -> list[tuple[str, str]]:
    """Pair names that are equal but for their suffix and a pattern that all share (`0801.png` and `0801x4.png`).

    Args:
        gt_names: of HR images, POSIX and relative.
        lq_names: of LR images.
        template: what the LR image of an HR image `{name}` is called, without its suffix; None: whatever pattern
            pairs all of them.

    Returns:
        (HR, LR) in the order of the HR names.

    Raises:
        ImageError: names the first that has no partner.
    """
    gt, lq = _by_stem(gt_names), _by_stem(lq_names)
    if template is not None:
        keys = {stem: _applied(template, stem) for stem in gt}
    elif len(gt) == 1 == len(lq) and (next(iter(gt)) in next(iter(lq)) or next(iter(lq)) in next(iter(gt))):
        keys = dict(zip(gt, lq, strict=True))
    else:
        keys = _common_pattern(list(gt), list(lq))
    missing = [f"HR image {gt[stem]} has no LR image {key}.*" for stem, key in keys.items() if key not in lq]
    extra = [f"LR image {lq[stem]} has no HR image" for stem in lq if stem not in set(keys.values())]
    if missing or extra:
        advice = "lq_template says what LR images are called, such as '{name}x4'"
        raise ImageError(f"{(missing + extra)[0]} ({len(gt)} HR and {len(lq)} LR images); {advice}")
    return [(gt[stem], lq[key]) for stem, key in keys.items()]


def _by_stem(names: list[str]) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(str(PurePosixPath(name).with_suffix("")), name)
        if other != name:
            raise ImageError(f"{other} and {name} differ in their suffix alone, which makes no pair; rename one")
    return stems


def _applied(template: str, stem: str) -> str:
    path = PurePosixPath(stem)
    return str(path.with_name(template.replace("{name}", path.name)))


def _common_pattern(gt: list[str], lq: list[str]) -> dict[str, str]:
    """HR stem -> LR stem: equal ones, else those equal without the common prefix and suffix of all stems."""
    if not set(gt) & set(lq) and len(gt) > 1:
        gt_keys, lq_keys = _differing_parts(gt), _differing_parts(lq)
        if set(gt_keys) == set(lq_keys):
            return {gt_keys[key]: lq_keys[key] for key in gt_keys}
    return {stem: stem for stem in gt}


def _differing_parts(stems: list[str]) -> dict[str, str]:
    """What no other stem shares -> stem."""
    start = len(os.path.commonprefix(stems))  # noqa: RUF071  (of characters)
    end = len(os.path.commonprefix([stem[start:][::-1] for stem in stems]))  # noqa: RUF071
    return {stem[start : len(stem) - end]: stem for stem in stems}
