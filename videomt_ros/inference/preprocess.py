"""Image -> network input, and the way back from the network's masks to the image's pixels.

The published pipeline: resize with the aspect kept until the short side has the model's test
size, normalise, then pad right and bottom with zeros to a multiple of the divisor. Masks return
by two bilinear resizes: to the padded input, whose padding is cut off, and to the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.model.config import VidEoMTConfig

MAX_ASPECT = 4
"""Long side of the input over the test size. A panorama or a line of pixels beyond it is made
smaller than the test size instead, so that no image can ask for unbounded memory."""


@dataclass(frozen=True)
class Geometry:
    """The three sizes of a frame on its way, each (height, width) in pixels."""

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    """The image within the input, at its top left."""
    padded_size: tuple[int, int]
    """The network's input."""

    @classmethod
    def of(cls, image_size: tuple[int, int], config: VidEoMTConfig) -> Geometry:
        """Sizes for an image of (height, width) under the model's test settings."""
        scale = min(
            config.test_size / min(image_size), MAX_ASPECT * config.test_size / max(image_size)
        )
        height, width = (max(1, int(side * scale + 0.5)) for side in image_size)
        divisor = config.size_divisor
        padded = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
        return cls(image_size, (height, width), padded)

    def grid_inside(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a mask grid (h, w) that can reach a pixel of the image.

        The cell beyond the last one that has its centre in the image is part of them, since the
        bilinear resize reads it; what lies further right or below is padding.
        """
        rows, columns = (
            min(cells, int(np.ceil((inside - 0.5) * cells / padded - 0.5)) + 1)
            for cells, inside, padded in zip(
                grid, self.resized_size, self.padded_size, strict=True
            )
        )
        return rows, columns

    def pixels_per_cell(self, grid: tuple[int, int]) -> float:
        """Image pixels that one cell of a mask grid (h, w) stands for."""
        pixels = 1.0
        for axis in range(2):
            pixels *= self.padded_size[axis] / grid[axis]
            pixels *= self.image_size[axis] / self.resized_size[axis]
        return pixels

    def to_padded(self, masks: Tensor) -> Tensor:
        """First resize, (N, h, w) -> (N, height, width) of the resized image, padding cut."""
        masks = F.interpolate(
            masks[None], size=self.padded_size, mode='bilinear', align_corners=False
        )
        return masks[0, :, : self.resized_size[0], : self.resized_size[1]]

    def to_image(self, masks: Tensor) -> Tensor:
        """Second resize, (N, height, width) of the resized image -> (N, H, W) of the image."""
        if self.resized_size == self.image_size:
            return masks
        return F.interpolate(
            masks[None], size=self.image_size, mode='bilinear', align_corners=False
        )[0]


class Preprocessor:
    """Makes the network's input on the network's device."""

    def __init__(self, config: VidEoMTConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.device = device
        self.dtype = dtype
        self._mean = torch.tensor(config.pixel_mean, device=device).view(3, 1, 1)
        self._inverse_std = 1 / torch.tensor(config.pixel_std, device=device).view(3, 1, 1)

    def __call__(self, image: NDArray[np.uint8]) -> tuple[Tensor, Geometry]:
        """Resize, normalise and pad one image.

        The resize is bilinear with antialiasing, as PIL's is, whatever the network's type: on a
        CPU in whole grey levels, which takes a quarter of the time, elsewhere in float32. The
        image may be a view with any strides, writeable or not.

        Args:
            image: RGB, (H, W, 3) uint8.

        Returns:
            The input, (1, 3, Hp, Wp) of the network's device and type, and the sizes.

        Raises:
            ValueError: the image has another shape or type, or no pixels.
        """
        check_image(image)
        geometry = Geometry.of((image.shape[0], image.shape[1]), self.config)
        if not image.flags.writeable:
            image = image.copy()  # torch warns of a view that it could write to
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
        frame = pixels.permute(2, 0, 1)[None]  # 1, 3, H, W
        if frame.device.type != 'cpu':
            frame = frame.float()  # GPUs resize no bytes
        if geometry.resized_size != geometry.image_size:
            frame = F.interpolate(
                frame,
                size=geometry.resized_size,
                mode='bilinear',
                align_corners=False,
                antialias=True,
            )
        frame = (frame - self._mean) * self._inverse_std
        height, width = geometry.resized_size
        padding = (0, geometry.padded_size[1] - width, 0, geometry.padded_size[0] - height)
        return F.pad(frame.to(self.dtype), padding).contiguous(), geometry


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse what is not an RGB image of bytes.

    Raises:
        ValueError: not a uint8 array of shape (H, W, 3) with H and W at least 1.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f'Expected an image as a numpy array (H, W, 3) uint8, got {type(image).__name__}.'
        )
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise ValueError(
            'Expected an RGB image (H, W, 3) of type uint8 with at least one pixel, '
            f'got {image.shape} {image.dtype}.'
        )
