"""Named lists of test tasks (Gu et al., IKC, CVPR 2019, for Gaussian8)."""

from __future__ import annotations

from mrda_data.degradation import Task

GAUSSIAN8_WIDTHS = {
    2: (0.80, 1.60),
    3: (1.35, 2.40),
    4: (1.80, 3.20),
}  # pixels; eight evenly spaced, both ends included


def _isotropic(sigma: float) -> Task:
    return {"sigma_x": sigma, "sigma_y": sigma, "theta": 0.0, "noise_sigma_255": 0.0}


def protocol_tasks(protocol: str, scale: int) -> list[Task]:
    """Return the tasks of `bicubic` (no blur) or `gaussian8` (eight isotropic 21x21 kernels) at this scale."""
    if protocol == "bicubic":
        return [_isotropic(0.0)]
    low, high = GAUSSIAN8_WIDTHS[scale]
    return [_isotropic(round(low + (high - low) * i / 7, 6)) for i in range(8)]


def task_label(task: Task) -> str:
    """Short name of a task for tables and file names, for example `sigma2.40`."""
    if task["sigma_x"] == 0:
        label = "bicubic"
    elif task["sigma_x"] == task["sigma_y"]:
        label = f"sigma{task['sigma_x']:.2f}"
    else:
        label = f"sigma{task['sigma_x']:.2f}x{task['sigma_y']:.2f}_theta{task['theta']:.2f}"
    return label + (f"_noise{task['noise_sigma_255']:g}" if task["noise_sigma_255"] else "")
