"""Panels: pictures of one image side by side, for reports, papers and the log of a training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mrda_utils.files import refusal_named, written_whole

BOX = (40, 40, 230)  # BGR


def side_by_side(
    pictures: dict[str, np.ndarray], kernel: np.ndarray | None, height: int = 256, kernel_in: int = 0
) -> Image.Image:
    """Pictures side by side under their names, the blur kernel, if any, in a corner of one.

    Args:
        pictures: name to (H, W, 3) uint8 BGR; each is brought to the same height, enlarged without smoothing.
        kernel: (k, k) blur kernel, or None.
        height: of the pictures, pixels.
        kernel_in: the picture that shows the kernel.
    """
    font, header, gap = ImageFont.load_default(14), 22, 4
    shown = []
    for image in pictures.values():
        width = round(image.shape[1] * height / image.shape[0])
        method = cv2.INTER_NEAREST if image.shape[0] <= height else cv2.INTER_AREA
        shown.append(Image.fromarray(cv2.resize(image, (width, height), interpolation=method)[..., ::-1]))
    if kernel is not None:
        inset = Image.fromarray((255 * kernel / kernel.max()).astype(np.uint8))
        shown[kernel_in].paste(inset.resize((63, 63), Image.Resampling.NEAREST).convert("RGB"), (0, height - 63))
    canvas = Image.new("RGB", (sum(image.width + gap for image in shown) - gap, height + header), "white")
    draw, left = ImageDraw.Draw(canvas), 0
    for name, image in zip(pictures, shown, strict=True):
        draw.text((left + 2, 3), name, fill="black", font=font)
        canvas.paste(image, (left, header))
        left += image.width + gap
    return canvas


def boxed(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 BGR with a frame around a part of it."""
    thickness = max(1, round(min(image.shape[:2]) / 120))
    return cv2.rectangle(image.copy(), (left, top), (left + width - 1, top + height - 1), BOX, thickness)


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a .png, or a .pdf for papers (JPEG inside, of the highest quality), folders included."""
    with refusal_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        if path.suffix == ".pdf":
            picture.save(file, "PDF", quality=100, subsampling=0, resolution=150)
        else:
            picture.save(file, "PNG")
