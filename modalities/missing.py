"""The error of everything that has to be fetched or installed before a model can do what is asked."""

from __future__ import annotations

__all__ = ["MissingPart"]


class MissingPart(RuntimeError):
    """Pretrained weights or a package that somebody else provides are not here; the message says how to get them."""
