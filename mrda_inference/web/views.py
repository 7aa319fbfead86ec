"""Parts of photographs as the page shows them: any rectangle of a result at any zoom, and of the photograph."""

from __future__ import annotations

import base64
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from mrda_inference.web.query import number

MOST_VIEW = 4096  # pixels a side of a view
VIEW_QUALITY = 95
MAP_SHARE = 0.65  # of the colours in the heat map; the rest is the photograph
MARGIN = 4  # pixels around a rectangle that bicubic upsampling looks at, and more


class Box(NamedTuple):
    """A rectangle of a result and the size that it is shown at, pixels."""

    left: int
    top: int
    width: int
    height: int
    shown_width: int
    shown_height: int

    @classmethod
    def within(cls, values: dict[str, str], sides: tuple[int, int]) -> Box:
        """Read the query of a request: `x`, `y`, `w`, `h` (by default all) and `most`, pixels of the longer side shown.

        Raises:
            ValueError: no whole numbers, or nothing inside of `sides`.
        """
        left, top = (number(values, key, int, 0) for key in ("x", "y"))
        right = min(left + number(values, "w", int, sides[1]), sides[1])
        bottom = min(top + number(values, "h", int, sides[0]), sides[0])
        left, top = max(left, 0), max(top, 0)
        width, height = right - left, bottom - top
        if width <= 0 or height <= 0:
            raise ValueError("nothing is there")
        most = min(max(number(values, "most", int, MOST_VIEW), 1), MOST_VIEW)
        share = min(1.0, most / max(width, height))
        return cls(left, top, width, height, max(1, round(share * width)), max(1, round(share * height)))


def before_view(colour: np.ndarray, sides: tuple[int, int], box: Box) -> np.ndarray:
    """The photograph enlarged bicubically to `sides`, a rectangle of it.

    Args:
        colour: (h, w, 3) RGB or (h, w, 1) gray, uint8 or uint16.
        sides: height and width that it is thought enlarged to.
        box: what to show, in pixels of that.

    Returns:
        (shown_height, shown_width, 3) uint8 RGB.
    """
    vertical, horizontal = (own / side for own, side in zip(colour.shape[:2], sides, strict=True))
    top, bottom = vertical * box.top, vertical * (box.top + box.height)
    left, right = horizontal * box.left, horizontal * (box.left + box.width)
    y, x = max(math.floor(top) - MARGIN, 0), max(math.floor(left) - MARGIN, 0)
    part = _rgb8(colour[y : math.ceil(bottom) + MARGIN, x : math.ceil(right) + MARGIN])
    wanted = (left - x, top - y, right - x, bottom - y)
    shown = Image.fromarray(part).resize((box.shown_width, box.shown_height), Image.Resampling.BICUBIC, box=wanted)
    return np.asarray(shown)


def after_view(pixels: np.ndarray, box: Box) -> np.ndarray:
    """A rectangle of a result, (H, W, C) gray, BGR or BGRA, uint8 or uint16; see `before_view`."""
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    part = _rgb8(part[..., 2::-1] if part.shape[2] > 1 else part)
    size = (box.shown_width, box.shown_height)
    return part if size == (box.width, box.height) else cv2.resize(part, size, interpolation=cv2.INTER_AREA)


def _rgb8(colour: np.ndarray) -> np.ndarray:
    if colour.dtype == np.uint16:
        colour = (colour // 257).astype(np.uint8)
    return np.ascontiguousarray(colour.repeat(3, axis=2) if colour.shape[2] == 1 else colour)


def heat_map(photograph: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay values over a photograph, from dark violet (the smallest) to yellow (the largest).

    Args:
        photograph: (H, W, 3) uint8 RGB.
        values: (h, w), of any range; upsampled to (H, W).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = photograph.shape[:2]
    share = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    large = cv2.resize(np.rint(255 * share).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    gray = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint(MAP_SHARE * colours + (1 - MAP_SHARE) * gray).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """(H, W, 3) RGB or (H, W) gray, uint8, as a file; quick rather than small."""
    return _encoded(".png", image, cv2.IMWRITE_PNG_COMPRESSION, 1)


def png_uri(image: np.ndarray) -> str:
    """The same as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) RGB or (H, W) gray, uint8, as a file; good rather than exact."""
    return _encoded(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, VIEW_QUALITY)


def _encoded(suffix: str, image: np.ndarray, *parameters: int) -> bytes:
    pixels = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    return cv2.imencode(suffix, pixels, parameters)[1].tobytes()


class Recent:
    """The pictures that were asked for last; reading one takes seconds, keeping one its memory.

    Args:
        most: how many.
    """

    def __init__(self, most: int = 1) -> None:
        self._most, self._kept, self._lock = most, OrderedDict(), threading.Lock()

    def get(self, key: Hashable, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The picture of this key, read if it is not there."""
        with self._lock:
            if key not in self._kept:
                self._put(key, read())
            self._kept.move_to_end(key)
            return self._kept[key]

    def put(self, key: Hashable, picture: np.ndarray) -> None:
        """Keep a picture that was not read."""
        with self._lock:
            self._put(key, picture)

    def forget(self, key: Hashable) -> None:
        """Let go of a picture, if it is there."""
        with self._lock:
            self._kept.pop(key, None)

    def _put(self, key: Hashable, picture: np.ndarray) -> None:
        self._kept[key] = picture
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
