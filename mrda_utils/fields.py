"""What every section is made of: a mapping that refuses unknown keys, and types with limits."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mrda_utils.errors import UNPRINTABLE


def did_you_mean(key: str, known: list[str]) -> str:
    """Advice on an unknown key: the nearest known one, or all of them."""
    folded = {name.casefold(): name for name in known}  # calculate_PSNR is nearer to calculate_psnr than to _ssim
    near = difflib.get_close_matches(key.casefold(), folded, n=1, cutoff=0.5)
    return f"did you mean {folded[near[0]]!r}?" if near else f"known: {', '.join(known)}"


class Section(BaseModel):
    """A mapping in which an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}, {did_you_mean(str(key), list(cls.model_fields))}")
        return data


def _printable(text: str) -> str:
    if UNPRINTABLE.search(text):
        raise ValueError("control characters, or bytes that are no UTF-8")
    return text


def _possible_path(text: str) -> str:
    if any(len(part.encode(errors="replace")) > 255 for part in re.split(r"[/\\\\]", text)):
        raise ValueError("a name of more than 255 bytes, which no file can have")
    return _printable(text)


Count = Annotated[int, Ge(1)]
FilePath = Annotated[str, Field(max_length=2000), AfterValidator(_possible_path)]
Label = Annotated[str, Field(max_length=100), AfterValidator(_printable)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
MethodName = Annotated[str, Field(pattern=r"^\w[\w .+-]*$", max_length=100)]
