"""Command lines of all programs."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from mrda_utils import __version__


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description, and adds the default of each argument that has one and does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        says_it = action.default in (None, False, [], ()) or "default" in text
        return text if says_it else super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """Refuses empty values, which unset variables of the shell leave; Path would take one for the working directory."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", None, partial(_not_empty, str))
        self.register("type", Path, partial(_not_empty, Path))


def _not_empty(kind: type, text: str) -> Any:
    if not text:
        raise argparse.ArgumentTypeError("an empty value")
    return kind(text)


def argument_parser(description: str | None, **options: Any) -> argparse.ArgumentParser:
    """A command line with --version; `options` are those of argparse."""
    parser = ArgumentParser(description=description, formatter_class=HelpFormatter, **options)
    parser.add_argument("--version", action="version", version=f"mrda {__version__}")
    return parser
