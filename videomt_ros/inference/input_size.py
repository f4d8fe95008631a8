"""The size to which images are resized for the network: what a user may ask for."""

from __future__ import annotations

from videomt_ros.model.config import NetworkConfig

MAX_INPUT_SIZE = 2048
"""Largest input size in pixels."""


def check_input_size(input_size: int, config: NetworkConfig) -> None:
    """Check that a network takes inputs whose short side has this size.

    Raises:
        ValueError: it is no multiple of the patch size from one patch to MAX_INPUT_SIZE.
    """
    patch = config.patch_size
    largest = MAX_INPUT_SIZE // patch * patch
    is_whole = isinstance(input_size, int) and not isinstance(input_size, bool)
    if not is_whole or not patch <= input_size <= largest or input_size % patch:
        raise ValueError(
            f'Expected input_size to be a multiple of the patch size {patch} from {patch} to '
            f'{largest}, got {input_size!r}. The own size of the model is {config.test_size}.'
        )
