"""Option files: the only place that knows their keys, types, units and defaults.

What a registered architecture, loss or metric accepts is read off its signature; the options of a degradation are
defined beside it.
"""

import mrda_arch  # noqa: F401  (these imports register what option files name)
import mrda_data  # noqa: F401
import mrda_loss  # noqa: F401
import mrda_metric  # noqa: F401
from mrda_options.options import force, read_options, validate

__all__ = ["force", "read_options", "validate"]
