"""The one place where torchaudio is imported.

torchaudio's wheels ended with 2.11. Their compiled half refuses to load beside other builds of torch (OSError on a CPU
build, RuntimeError on another CUDA version), although every transform needed here is plain PyTorch. Where it cannot
load, a stub `torchaudio._extension` is registered first, which is the state torchaudio itself documents for an
installation without its compiled library. Forced alignment and the RNN-T loss are then missing and say so.

    from .torchaudio_compat import torchaudio
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_STUB = "torchaudio._extension"


def import_torchaudio() -> ModuleType:
    """torchaudio with its compiled half where that loads, without it elsewhere.

    Raises:
        ModuleNotFoundError: torchaudio is not installed.
    """
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError, RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules[_STUB] = _stub()
        return importlib.import_module("torchaudio")


def compiled() -> bool:
    """Whether torchaudio's compiled half is in use."""
    return bool(getattr(sys.modules.get(_STUB), "_IS_TORCHAUDIO_EXT_AVAILABLE", False))


def _stub() -> ModuleType:
    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        def missing(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"{function.__name__} needs torchaudio's compiled half, which this torch cannot load")

        return missing

    stub: Any = ModuleType(_STUB)
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stub._IS_ALIGN_AVAILABLE = False
    stub._check_cuda_version = lambda: None
    stub.fail_if_no_align = fail_if_no_align
    return stub


torchaudio: Any = import_torchaudio()
