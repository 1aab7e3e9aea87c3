"""Errors with a message for the user: shown in one line, without a traceback unless --debug is given."""

from __future__ import annotations


class UserError(Exception):
    """The command cannot do what was asked; the message says why and what would work."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class NonFiniteLoss(UserError):
    """Training has met a loss or gradient that is NaN or infinite."""
