"""Gaussian blur kernels, and filtering with one kernel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mrda_data.degradation.base import Task
from mrda_data.transfer import send


def gaussian_kernel(sigma_x: float, sigma_y: float, theta: float = 0.0, kernel_size: int = 21) -> Tensor:
    """Sampled Gaussian density with covariance R(theta) diag(sigma_x^2, sigma_y^2) R(theta)^T, normalised to sum 1.

    Args:
        sigma_x: standard deviation along the first principal axis, pixels, > 0.
        sigma_y: standard deviation along the second, pixels, > 0.
        theta: angle of the first axis, radians; counted from x towards y (rows grow downwards).
        kernel_size: odd, pixels.

    Returns:
        (kernel_size, kernel_size) float64, non-negative.
    """
    if kernel_size % 2 == 0 or kernel_size < 1:
        raise ValueError(f"kernel_size: {kernel_size} must be odd and positive")
    if sigma_x <= 0 or sigma_y <= 0:
        raise ValueError(f"sigma_x, sigma_y: {sigma_x}, {sigma_y} must be positive")
    axis = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = math.cos(theta) * x + math.sin(theta) * y
    across = -math.sin(theta) * x + math.cos(theta) * y
    kernel = torch.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    return kernel / kernel.sum()


def is_classic(task: Task | None) -> bool:
    """Whether this is a task of `classic_degrade`, which has one kernel, that of `task_kernel`."""
    return task is not None and task.keys() == {"sigma_x", "sigma_y", "theta", "noise_sigma_255"}


def task_kernel(task: Task, kernel_size: int = 21) -> Tensor:
    """Kernel of a classic task (`classic_degrade`), a single 1 where it has no blur; for pictures."""
    sigma_x, sigma_y = (task[key] or 1e-3 for key in ("sigma_x", "sigma_y"))
    return gaussian_kernel(sigma_x, sigma_y, task["theta"], kernel_size)


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """Filter every channel of (N, C, H, W) with one odd square kernel; borders are reflected, edge not repeated.

    The kernel is on the CPU, the images on any device.

    Raises:
        ValueError: H or W not larger than half the kernel, where reflection ends.
    """
    height, width = image.shape[-2:]
    size = kernel.shape[-1]
    half = size // 2
    if min(height, width) <= half:
        raise ValueError(
            f"image of {height}x{width} is too small for a {size}x{size} kernel: at least {half + 1} pixels"
        )
    return filter2d(image, kernel)


def mirrored(size: int, margin: int) -> Tensor:
    """Source index of each position -margin .. size + margin - 1 of an axis that is reflected as often as it takes."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(-margin, size + margin).remainder(period)
    return torch.minimum(index, period - index)


def filter2d(image: Tensor, kernel: Tensor) -> Tensor:
    """Like `blur`, for images of any size: where one is smaller than half the kernel, it is reflected repeatedly."""
    n, c, height, width = image.shape
    size = kernel.shape[-1]
    half = size // 2
    if half < min(height, width):
        padded = F.pad(image, (half,) * 4, mode="reflect")
    else:
        rows, columns = (send(mirrored(length, half), image.device) for length in (height, width))
        padded = image[:, :, rows][..., columns]
    # one group a channel and sample: far faster on the CPU than one group that shares the kernel
    weight = send(kernel, image.device, image.dtype).expand(n * c, 1, size, size)
    return F.conv2d(padded.reshape(1, n * c, *padded.shape[-2:]), weight, groups=n * c).view(image.shape)
