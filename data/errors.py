"""The error of everything that is wrong with the user's data."""

from __future__ import annotations


class DataError(ValueError):
    """Data are missing, unreadable or not what the task needs.

    The message is shown to the user as it is, so it names the file, the row or column, and what would be accepted.
    """
