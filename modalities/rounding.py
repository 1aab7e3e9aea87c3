"""Smaller weight files: numbers of 16 bits, and of 8 where that is not enough.

Half precision keeps 11 significant bits, float8 (e4m3) four; a model computes in 32 bits again once it is loaded. What
rounding costs has to be measured on the model that was read back.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["rounded", "stored_bytes"]


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the parameters and persistent buffers of a module, without the file's header."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _distinct(module))


def rounded(module: nn.Module, limit: int | None = None) -> tuple[Any, int]:
    """A copy that is fit to be stored, not to be run.

    Args:
        module: Weights of any precision.
        limit: Bytes that the weights may take; None for 16 bits throughout. The largest matrices become 8 bits wide one
            after the other until they fit.

    Returns:
        The copy, and how many of its numbers have 8 bits.

    Raises:
        ValueError: It does not fit even so.
    """
    small, coarse = copy.deepcopy(module), 0
    for tensor in _distinct(small):
        if tensor.dtype in (torch.float32, torch.float64):
            if tensor.numel() and float(tensor.detach().abs().max()) > torch.finfo(torch.float16).max:
                raise ValueError("a weight is too large for 16 bits: export without a limit")
            tensor.data = tensor.data.half()
    if limit is None:
        return small, coarse
    size = stored_bytes(small)
    for tensor in sorted(_distinct(small), key=Tensor.numel, reverse=True):
        if size <= limit:
            break
        if tensor.dtype == torch.float16 and tensor.ndim >= 2:
            tensor.requires_grad_(False)
            tensor.data = tensor.data.to(torch.float8_e4m3fn)
            size, coarse = size - tensor.numel(), coarse + tensor.numel()
    if size > limit:
        raise ValueError(f"the weights take {size / 1e6:.2f} MB even with 8 bits for every matrix, not {limit / 1e6:g}")
    return small, coarse


def _distinct(module: nn.Module) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}.values())
