"""What was tested and measured, in words for a reader of the report."""

from __future__ import annotations

from mrda_data.protocols import protocol_cases
from mrda_metric import Metric

_NAMES = {"calculate_psnr": "PSNR", "calculate_ssim": "SSIM", "calculate_niqe": "NIQE", "calculate_lpips": "LPIPS"}


def metric_in_words(metric: Metric) -> str:
    """Such as "psnr: PSNR in dB on Y (BT.601, 16-235), 4 pixels left out at each side"."""
    options = {**metric.options}
    words = _NAMES.get(metric.type, metric.type.removeprefix("calculate_"))
    if metric.kind.unit:
        words += f" in{metric.kind.unit}"
    if options.pop("test_y_channel", False) or options.get("convert_to") == "y":
        words += " on Y (BT.601, 16-235)"
    elif "convert_to" in options:
        words += " on gray values"
    elif metric.needs_gt:
        words += " on RGB"
    options.pop("convert_to", None)
    parts = [words] if metric.kind.higher_is_better else [words, "lower is better"]
    border = options.pop("crop_border", 0)
    parts.append(f"{border} pixels left out at each side" if border else "no border left out")
    parts += [f"{key} {value}" for key, value in options.items() if key != "weights"]
    return f"{metric.name}: {', '.join(parts)}"


def set_in_words(dataset_opt: dict) -> str:
    """Such as "Set5: 8 isotropic Gaussian blurs of 1.8 to 3.2 pixels (21x21 kernels), ..."."""
    name, scale = dataset_opt["name"], dataset_opt["scale"]
    if "protocol" not in dataset_opt:
        pairs = "dataroot_gt" in dataset_opt
        return f"{name}: LR images as given, {'with' if pairs else 'without'} ground truth"
    if "dataroot_lq" in dataset_opt:
        return f"{name}: LR images as given in {dataset_opt['dataroot_lq']}, for protocol {dataset_opt['protocol']}"
    cases = protocol_cases(dataset_opt["protocol"], scale)
    tasks, kinds = [case.task for case in cases], {case.kind for case in cases}
    if "photo" in kinds:
        return f"{name}: {len(cases)} kinds of photographs, {', '.join(case.label for case in cases)}, scale {scale}"
    if kinds == {"realesrgan"}:
        return f"{name}: {len(tasks)} fixed draws of {dataset_opt['protocol']}'s degradation, scale {scale}"
    kernels = list(dict.fromkeys((task["sigma_x"], task["sigma_y"], task["theta"]) for task in tasks))
    levels = list(dict.fromkeys(task["noise_sigma_255"] for task in tasks))
    parts = [_kernels_in_words(kernels, dataset_opt["kernel_size"])]
    parts.append(f"bicubic downsampling by {scale} (MATLAB's, with antialiasing)")
    if levels != [0]:
        parts.append(f"Gaussian noise of standard deviation {', '.join(f'{level:g}' for level in levels)} (0-255)")
    parts.append("LR rounded to 8 bits")
    cut = [f"{key.replace('_', ' ')} {dataset_opt[key]}" for key in ("max_images", "max_side") if key in dataset_opt]
    return f"{name}: {', '.join([*parts, *cut])}"


def _kernels_in_words(kernels: list[tuple[float, float, float]], size: int) -> str:
    if not any(sigma_x for sigma_x, _, _ in kernels):
        return "no blur"
    widths = sorted({width for sigma_x, sigma_y, _ in kernels for width in (sigma_x, sigma_y)})
    kind = "isotropic" if all(sigma_x == sigma_y for sigma_x, sigma_y, _ in kernels) else "anisotropic"
    span = f"of {widths[0]:g} to {widths[-1]:g} pixels" if len(widths) > 1 else f"of {widths[0]:g} pixels"
    blurs = "blur" if len(kernels) == 1 else "blurs"
    return f"{len(kernels)} {kind} Gaussian {blurs} {span} ({size}x{size} kernels)"
