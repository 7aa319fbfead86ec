"""CMYK: what a printing press means by it, as RGB."""

from __future__ import annotations

import imagecodecs
import numpy as np


def rgb_of_cmyk(ink: np.ndarray, profile: bytes | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert to sRGB by the file's own colour profile or, without one, as each ink took its share of the light.

    Args:
        ink: (H, W, 4), uint8 or uint16; 0 is no ink.
        profile: ICC.

    Returns:
        (H, W, 3) sRGB of the same type; a line where it is not by a profile.
    """
    if profile:
        try:
            ink = np.ascontiguousarray(ink)
            srgb = imagecodecs.cms_profile("srgb")
            return imagecodecs.cms_transform(ink, profile, srgb, colorspace="cmyk", outcolorspace="rgb"), ()
        except imagecodecs.CmsError:
            note = "its colour profile is no sound one of CMYK; the colours are approximate"
    else:
        note = "its CMYK has no colour profile; the colours are approximate"
    limit = np.iinfo(ink.dtype).max
    light = (limit - ink).astype(np.uint32)
    return ((light[..., :3] * light[..., 3:] + limit // 2) // limit).astype(ink.dtype), (note,)
