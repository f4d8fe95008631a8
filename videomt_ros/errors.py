"""Errors as text."""

from __future__ import annotations

OUTPUT_FAULT = 'The outputs of the network'
"""Start of the warning that a network computes nothing of use, which runs of the node look for."""


def command_text(error: Exception) -> str:
    """Return what an error says to those who write commands and parameters, and not Python.

    Errors whose advice differs have it in `command_text`.
    """
    return str(getattr(error, 'command_text', error))


def one_line(error: Exception, limit: int = 300) -> str:
    """Write what an error says in one line, or its type if it says nothing.

    Args:
        error: the error.
        limit: largest number of characters.
    """
    return ' '.join(str(error).split())[:limit].rstrip('. ') or type(error).__name__


def fault_line(error: Exception, limit: int = 300) -> str:
    """Write an error in one line; one whose message is not meant for users has its type, too.

    Args:
        error: the error; the messages of ValueError and OSError say what to do.
        limit: largest number of characters of the message.
    """
    text = one_line(error, limit)
    if isinstance(error, (ValueError, OSError)) or text == type(error).__name__:
        return text
    return f'{type(error).__name__}: {text}'
