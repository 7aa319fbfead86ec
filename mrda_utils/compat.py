"""The one place that knows about versions of BasicSR, torchvision and Python.

Import it before the first `import basicsr`. BasicSR 1.4.2 imports `torchvision.transforms.functional_tensor` (gone
since torchvision 0.17), `distutils` (gone since Python 3.12) and `scipy.ndimage.filters` (gone in SciPy 2): where one
is missing, an alias takes its place. Installing twice changes nothing, and a version that has the real module keeps it.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import types

import scipy.ndimage
import torchvision.transforms.functional


class _LooseVersion:
    """The comparison BasicSR asks of `distutils.version.LooseVersion`: number by number."""

    def __init__(self, text: str) -> None:
        self.numbers = [int(number) for number in re.findall(r"\d+", text)]

    def __ge__(self, other: str | _LooseVersion) -> bool:
        return self.numbers >= (_LooseVersion(other) if isinstance(other, str) else other).numbers


def _alias(name: str, **attributes: object) -> None:
    """Put a module called `name` with these attributes into `sys.modules`, linked to its parent package."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)


def _is_missing(name: str) -> bool:
    return name not in sys.modules and importlib.util.find_spec(name) is None


def install() -> None:
    """Make `import basicsr` work with the installed torchvision, SciPy and Python."""
    if _is_missing("torchvision.transforms.functional_tensor"):
        rgb_to_grayscale = torchvision.transforms.functional.rgb_to_grayscale
        _alias("torchvision.transforms.functional_tensor", rgb_to_grayscale=rgb_to_grayscale)
    if _is_missing("scipy.ndimage.filters"):
        _alias("scipy.ndimage.filters", convolve=scipy.ndimage.convolve)
    if _is_missing("distutils"):
        _alias("distutils")
        _alias("distutils.version", LooseVersion=_LooseVersion)


install()
