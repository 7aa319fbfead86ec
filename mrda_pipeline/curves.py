"""TensorBoard's curves."""

from __future__ import annotations

from pathlib import Path

from mrda_utils.files import refusal_named


class Curves:
    """Writes values to `folder`, each of them before `add_scalar` returns: none is lost, and a full disk is noticed.

    By itself TensorBoard writes in the background, and tells of a failure late or never.

    Args:
        folder: for TensorBoard's files.
        first_step: iteration that the run goes on from; what an earlier process logged beyond it is taken back.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not always wanted

        self.folder = folder
        with refusal_named(folder):
            self.writer = SummaryWriter(str(folder), purge_step=first_step + 1)
            self.writer.flush()

    def add_scalar(self, name: str, value: float, iteration: int) -> None:
        """Add a point to the curve `name`.

        Raises:
            UserError: it cannot be written.
        """
        with refusal_named(self.folder):
            self.writer.add_scalar(name, value, iteration)
            self.writer.flush()

    def close(self) -> None:
        """End the writing thread."""
        with refusal_named(self.folder):
            self.writer.close()
