"""Values in the query of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import ImageColor

from mrda_utils.errors import OptionError


def number(query: Mapping[str, Any], key: str, kind: type[int] | type[float], default: Any = None) -> Any:
    """A number of this kind; `default` where the query has none.

    Raises:
        OptionError: something else.
    """
    value = query.get(key, "")
    try:
        return default if value == "" else kind(value)
    except ValueError as error:
        raise OptionError(f"{key}: {value!r} is no {'whole ' if kind is int else ''}number") from error


def rgb(query: Mapping[str, str], key: str) -> tuple[int, int, int] | None:
    """RGB, 0 to 255; None where the query has none.

    Raises:
        OptionError: something else.
    """
    try:
        return ImageColor.getrgb(query[key])[:3] if query.get(key) else None
    except ValueError as error:
        raise OptionError(f"{key}: {query[key]!r} is no colour; white, black, #ffeedd ...") from error
