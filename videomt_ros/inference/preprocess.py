"""Turn an image into the network's input, and masks of the network into masks of the image.

As in the original code, an image is resized, with its aspect ratio kept, until its short side has
the input size (by default the model's test size), normalised, and padded with zeros at the right
and bottom to a multiple of the divisor. Masks are resized twice, bilinearly: to the padded input,
whose padding is then cut off, and to the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.scratch import own_scratch
from videomt_ros.inference.transfer import upload
from videomt_ros.model.config import NetworkConfig

MAX_ASPECT = 4
"""Largest long side of the input over the input size. Longer images are made smaller instead, so
that no image can require unbounded memory."""


@dataclass(frozen=True)
class Geometry:
    """The three sizes of a frame, each (height, width) in pixels."""

    image_size: tuple[int, int]
    """Size of the original image."""
    resized_size: tuple[int, int]
    """Size of the resized image, which is at the top left of the network's input."""
    padded_size: tuple[int, int]
    """Size of the network's input."""

    @classmethod
    def of(
        cls, image_size: tuple[int, int], config: NetworkConfig, input_size: int | None = None
    ) -> Geometry:
        """Compute the sizes for an image.

        Args:
            image_size: (height, width) of the image.
            config: configuration of the network.
            input_size: short side of the resized image in pixels; None: the model's test size.
        """
        short_side = config.test_size if input_size is None else input_size
        scale = min(short_side / min(image_size), MAX_ASPECT * short_side / max(image_size))
        height, width = (max(1, int(side * scale + 0.5)) for side in image_size)
        divisor = config.size_divisor
        padded = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
        return cls(image_size, (height, width), padded)

    def grid_inside(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Count the rows and columns of a mask grid (h, w) that can reach a pixel of the image.

        They include the one beyond the last cell whose centre is in the image, since the bilinear
        resize reads it; all cells further right or below are padding.
        """
        rows, columns = (
            min(cells, int(np.ceil((inside - 0.5) * cells / padded - 0.5)) + 1)
            for cells, inside, padded in zip(
                grid, self.resized_size, self.padded_size, strict=True
            )
        )
        return rows, columns

    def pixels_per_cell(self, grid: tuple[int, int]) -> float:
        """Compute the number of image pixels that one cell of a mask grid (h, w) stands for."""
        pixels = 1.0
        for axis in range(2):
            pixels *= self.padded_size[axis] / grid[axis]
            pixels *= self.image_size[axis] / self.resized_size[axis]
        return pixels

    def to_padded(self, masks: Tensor) -> Tensor:
        """Resize masks (N, h, w) to the input and cut the padding, (N, height, width)."""
        masks = F.interpolate(
            masks[None], size=self.padded_size, mode='bilinear', align_corners=False
        )
        return masks[0, :, : self.resized_size[0], : self.resized_size[1]]

    def to_image(self, masks: Tensor) -> Tensor:
        """Resize masks of the resized image, (N, height, width), to the image, (N, H, W)."""
        if self.resized_size == self.image_size:
            return masks
        return F.interpolate(
            masks[None], size=self.image_size, mode='bilinear', align_corners=False
        )[0]


class Preprocessor:
    """Turns images into the network's input, on the network's device."""

    def __init__(
        self,
        config: NetworkConfig,
        device: torch.device,
        dtype: torch.dtype,
        input_size: int | None = None,
    ) -> None:
        """Prepare images for a network.

        Args:
            config: configuration of the network.
            device: device of the network.
            dtype: type of its weights.
            input_size: short side of the resized images in pixels, see `check_input_size`; None:
                the model's test size.
        """
        self.config = config
        self.input_size = input_size
        self.device = device
        self.dtype = dtype
        self._mean = torch.tensor(config.pixel_mean, device=device).view(3, 1, 1)
        self._inverse_std = 1 / torch.tensor(config.pixel_std, device=device).view(3, 1, 1)
        levels = torch.arange(256, device=device)
        tables = (levels - self._mean) * self._inverse_std  # 3, 1, 256
        self._tables = _as_array(tables.to(dtype).cpu())
        """Value of each byte of each channel in the network's input."""

    @property
    def key(self) -> tuple[object, ...]:
        """What decides the input of an image: streams with equal keys can share it."""
        config = self.config
        size = config.test_size if self.input_size is None else self.input_size
        pixels = (config.pixel_mean, config.pixel_std)
        return (size, config.size_divisor, *pixels, self.device, self.dtype)

    def __call__(self, image: NDArray[np.uint8]) -> tuple[Tensor, Geometry]:
        """Resize, normalise and pad one image.

        The resize is bilinear with antialiasing, as PIL's is. On a CPU it rounds to whole grey
        levels, which takes a quarter of the time; elsewhere it computes in float32.

        Args:
            image: RGB, (H, W, 3) uint8; any strides, need not be writeable.

        Returns:
            The input, (1, 3, Hp, Wp) on the network's device and in its dtype, and the sizes.

        Raises:
            ValueError: the image has another shape or type, or no pixels.
        """
        check_image(image)
        geometry = Geometry.of((image.shape[0], image.shape[1]), self.config, self.input_size)
        pixels = upload(image, self.device)
        # Unsqueezed first: with other strides of the batch torch would not see that the channels
        # are last in memory, and copy.
        frame = pixels.unsqueeze(0).permute(0, 3, 1, 2)  # 1, 3, H, W
        if frame.device.type != 'cpu':
            # Torch cannot resize uint8 on a GPU, whose threads read pixels of a row together.
            frame = frame.to(torch.float32, memory_format=torch.contiguous_format)
        if geometry.resized_size != geometry.image_size:
            frame = F.interpolate(
                frame,
                size=geometry.resized_size,
                mode='bilinear',
                align_corners=False,
                antialias=True,
            )
        padded = torch.empty((1, 3, *geometry.padded_size), dtype=self.dtype, device=self.device)
        height, width = geometry.resized_size
        inside = padded[..., :height, :width]
        if frame.device.type == 'cpu':
            self._normalise_bytes(frame[0], inside[0])
        else:
            # Half precision rounds last.
            own = inside if self.dtype == torch.float32 else None
            torch.mul(torch.sub(frame, self._mean, out=own), self._inverse_std, out=inside)
        padded[..., height:, :].zero_()
        padded[..., :height, width:].zero_()
        return padded, geometry

    def _normalise_bytes(self, frame: Tensor, out: Tensor) -> None:
        """Write the value of each byte (3, height, width) into `out`, of the network's dtype.

        A look-up writes each value once, and OpenCV separates channels that are last in memory in
        a tenth of torch's time.
        """
        pixels = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
        planes = own_scratch().array('planes', (3, *pixels.shape[:2]), np.uint8)
        cv2.split(pixels, list(planes))
        for plane, table, values in zip(planes, self._tables, _as_array(out), strict=True):
            cv2.LUT(plane, table, values)


def _as_array(values: Tensor) -> NDArray[Any]:
    """View a tensor as an array; half precision as its bits, since numpy knows no bfloat16."""
    if values.dtype.itemsize != 2:
        return values.numpy()
    return values.view(torch.int16).numpy().view(np.uint16)


def check_image(image: NDArray[np.uint8]) -> None:
    """Check that an array is an RGB image of bytes.

    Raises:
        ValueError: it is not a uint8 array of shape (H, W, 3) with H and W at least 1.
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
