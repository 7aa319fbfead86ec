"""What devices compute in: bfloat16 or not, and the precision, determinism and speed of float32 on CUDA."""

from __future__ import annotations

import os

import torch


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device convolves bfloat16 about as fast as float32, or faster.

    GPUs do from compute capability 8.0 on, processors with AVX-512 or ARM's bfloat16 instructions; others emulate it.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return True


def set_numerics(*, tf32: bool = False, deterministic: bool = False, cudnn_benchmark: bool = False) -> None:
    """Set all switches of torch for float32 on CUDA; call it before CUDA computes anything.

    The defaults suit programs that restore images of many sizes and measure: full float32, no trials.

    Args:
        tf32: convolutions of float32 round their factors to TF32, 10 bits of mantissa. Matrix products never do:
            networks have hardly any, but JPEG compression and sharpening consist of them.
        deterministic: an operation that would not give the same bits each time takes another form or, where it has
            none, raises a RuntimeError, which `mrda_utils.errors.run` reports in one line.
        cudnn_benchmark: cuDNN takes the algorithm that was fastest at the first call with each size; not with
            `deterministic`, since the fastest one is not always the same.
    """
    # by their older names: once the newer ones (fp32_precision) are set, whatever still reads these raises an error
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = cudnn_benchmark and not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without
