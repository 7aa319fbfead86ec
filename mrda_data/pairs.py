"""Which LR image belongs to which HR image, by their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import PurePosixPath

from mrda_data.images import ImageError

TEMPLATE = re.compile(r"[^{}/]*\{name\}[^{}/]*")


def pair_names(gt_names: list[str], lq_names: list[str], template: str | None = None) -> list[tuple[str, str]]:
    """Pair names that are equal but for their suffix and a pattern that all share (`0801.png` and `0801x4.png`).

    The pattern splits no number, and where both sides have a number of their own in it, the frames are different ones.

    Args:
        gt_names: of HR images, POSIX and relative.
        lq_names: of LR images.
        template: what the LR image of an HR image `{name}` is called, without its suffix; None: whatever pattern
            pairs all of them.

    Returns:
        (HR, LR) in the order of the HR names.

    Raises:
        ImageError: names the first that has no partner, or a template that is none.
    """
    if template is not None and not TEMPLATE.fullmatch(template):
        raise ImageError(f"lq_template {template!r}: must contain {{name}} once and no slash, such as '{{name}}x4'")
    gt, lq = _by_stem(gt_names), _by_stem(lq_names)
    keys = _common_pattern(list(gt), list(lq)) if template is None else {stem: _applied(template, stem) for stem in gt}
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
    """HR stem -> LR stem, which may be missing: the same; where none is the same, that of the same differing part."""
    if len(gt) == 1 == len(lq):
        return {gt[0]: lq[0] if _is_contained(gt[0], lq[0]) or _is_contained(lq[0], gt[0]) else gt[0]}
    (gt_start, gt_keys, gt_end), (lq_start, lq_keys, lq_end) = _differing_parts(gt), _differing_parts(lq)
    has_pattern = set(gt_keys) & set(lq_keys) and _numbers_agree(gt_start + gt_end, lq_start + lq_end)
    if set(gt) & set(lq) or not has_pattern:
        return {stem: stem for stem in gt}
    return {stem: "".join(lq_start + key + lq_end) for key, stem in gt_keys.items()}


def _parts(stem: str) -> tuple[str, ...]:
    """Numbers and single characters: a pattern may end between them, never within a number."""
    return tuple(re.findall(r"\d+|\D", stem))


def _is_contained(stem: str, other: str) -> bool:
    inner, outer = _parts(stem), _parts(other)
    places = range(len(outer) - len(inner) + 1)
    return any(outer[i : i + len(inner)] == inner for i in places) and _numbers_agree(inner, outer)


def _numbers_agree(gt: tuple[str, ...], lq: tuple[str, ...]) -> bool:
    """Whether one side has all numbers of the other, scales apart: `_HR` and `_LR4`, x1 and x4, but not s1 and s2."""
    numbers = (re.findall(r"\d+", re.sub(r"(?<![a-zA-Z])[xX]\d+", "", "".join(parts))) for parts in (gt, lq))
    left, right = map(Counter, numbers)
    return left <= right or right <= left


def _differing_parts(stems: list[str]) -> tuple[tuple[str, ...], dict[tuple[str, ...], str], tuple[str, ...]]:
    """The beginning that all stems share, what no other stem shares -> stem, the end that all share."""
    parts = {_parts(stem): stem for stem in stems}
    start = len(os.path.commonprefix(list(parts)))  # noqa: RUF071  (of tuples)
    end = len(os.path.commonprefix([part[start:][::-1] for part in parts]))  # noqa: RUF071
    first = next(iter(parts), ())
    keys = {part[start : len(part) - end]: stem for part, stem in parts.items()}
    return first[:start], keys, first[len(first) - end :]
