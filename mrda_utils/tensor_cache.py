"""A cache for functions that make tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable)


def tensor_cache(maxsize: int) -> Callable[[Function], Function]:
    """`functools.lru_cache`, whose results serve inference and training alike.

    What is made under `torch.inference_mode` can never take part in a backward pass. So the function runs outside of
    it, whoever happens to ask first.
    """
    return lambda function: lru_cache(maxsize)(torch.inference_mode(False)(function))
