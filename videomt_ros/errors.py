"""Errors as text."""

from __future__ import annotations


def one_line(error: Exception, limit: int = 300) -> str:
    """Write what an error says in one line, or its type if it says nothing.

    Args:
        error: the error.
        limit: largest number of characters.
    """
    return ' '.join(str(error).split())[:limit].rstrip('. ') or type(error).__name__
