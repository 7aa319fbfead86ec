"""The stages as BasicSR model classes, and the adaptation that they share."""

from mrda_utils import compat  # noqa: F401  (first: BasicSR cannot be imported without it)

# isort: split
from mrda_model.baseline_model import MRDABaselineModel
from mrda_model.benchmark_model import MRDATestModel
from mrda_model.kernel_model import MRDAKernelModel
from mrda_model.mln_bicubic_model import MLNBicubicModel
from mrda_model.mln_meta_model import MLNMetaModel
from mrda_model.student_model import MRDAStudentModel
from mrda_model.teacher_model import MRDATeacherModel

__all__ = [
    "MLNBicubicModel",
    "MLNMetaModel",
    "MRDABaselineModel",
    "MRDAKernelModel",
    "MRDAStudentModel",
    "MRDATeacherModel",
    "MRDATestModel",
]
