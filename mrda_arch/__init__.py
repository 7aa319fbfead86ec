"""MLN, DEN, RDAN and MRDANet in BasicSR's ARCH_REGISTRY.

`import mrda_arch` before a BasicSR experiment's own imports is all that a plugin user needs.
"""

from mrda_utils import compat  # noqa: F401  (first: BasicSR cannot be imported without it)

# isort: split
from mrda_arch.den_arch import DEN
from mrda_arch.kernel_net_arch import MRDAKernelNet
from mrda_arch.mln_arch import MLN
from mrda_arch.mrda_net_arch import MRDANet
from mrda_arch.network_file import network_from_file
from mrda_arch.rdan_arch import RDAN

__all__ = ["DEN", "MLN", "RDAN", "MRDAKernelNet", "MRDANet", "network_from_file"]
