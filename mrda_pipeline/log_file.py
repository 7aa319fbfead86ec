"""BasicSR's logger, writing to a file of the run as well."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from basicsr.utils import get_root_logger

from mrda_utils.files import refusal_named


class LogFile(logging.FileHandler):
    """A log file that cannot be written ends the run like any other file; logging itself would go on without it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Raise the OSError at hand."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return super().handleError(record)
        with refusal_named(Path(self.baseFilename)):
            raise error

    def close(self) -> None:
        """Close the file, on a full disk too."""
        with suppress(OSError):  # it comes again for the lines that found no room
            super().close()


@contextmanager
def run_logger(log_file: Path, is_main: bool) -> Iterator[logging.Logger]:
    """BasicSR's logger, which in the main process writes to this file too (its own file handler is set once a process).

    Raises:
        UserError: the file cannot be written.
    """
    logger = get_root_logger()
    handler = None
    if is_main:
        with refusal_named(log_file):
            handler = LogFile(log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        logger.handlers[0].setLevel(logging.INFO)  # BasicSR's, for the console
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield logger
    finally:
        if handler:
            logger.removeHandler(handler)
            handler.close()
