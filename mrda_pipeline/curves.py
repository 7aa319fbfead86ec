"""TensorBoard's curves and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mrda_utils.files import refusal_named


class Curves:
    """Writes to `folder`, each call before it returns: nothing is lost, and a full disk is noticed.

    By itself TensorBoard writes in the background, and reports a failure late or never.

    Args:
        folder: for TensorBoard's files.
        first_step: iteration that the run goes on from; later points of an earlier process are purged.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not always wanted

        self.folder = folder
        with refusal_named(folder):
            self.writer = SummaryWriter(str(folder), purge_step=first_step + 1)
            self.writer.flush()

    def add(self, values: dict[str, float], iteration: int) -> None:
        """Add a point to each of these curves.

        Raises:
            UserError: it cannot be written.
        """
        with refusal_named(self.folder):
            for name, value in values.items():
                self.writer.add_scalar(name, value, iteration)
            self.writer.flush()

    def add_picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Add a picture (H, W, 3) uint8 RGB; see `add`."""
        with refusal_named(self.folder):
            self.writer.add_image(name, picture, iteration, dataformats="HWC")
            self.writer.flush()

    def close(self) -> None:
        """End the writing thread."""
        with refusal_named(self.folder):
            self.writer.close()
