"""The way into the network and back, on sizes that divide by nothing."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from videomt_ros.inference.input_size import check_input_size
from videomt_ros.inference.preprocess import Geometry, Preprocessor
from videomt_ros.model import NetworkConfig

CONFIG = NetworkConfig(num_classes=2, test_size=96, size_divisor=32)


def prepare(image, config=CONFIG, dtype=torch.float32):
    return Preprocessor(config, torch.device('cpu'), dtype)(image)


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ('image_size', 'resized', 'padded'),
    [
        ((480, 640), (96, 128), (96, 128)),
        ((640, 480), (128, 96), (128, 96)),
        ((720, 1280), (96, 171), (96, 192)),  # 170.67
        ((96, 97), (96, 97), (96, 128)),
        ((192, 253), (96, 127), (96, 128)),  # 126.5 is rounded up
        ((64, 33), (186, 96), (192, 96)),
        ((1, 1), (96, 96), (96, 96)),
        ((3, 2000), (1, 384), (32, 384)),  # beyond MAX_ASPECT
        ((2000, 3), (384, 1), (384, 32)),
    ],
)
def test_sizes(image_size, resized, padded):
    frame, geometry = prepare(random_image(*image_size))
    assert geometry == Geometry(image_size, resized, padded)
    assert frame.shape == (1, 3, *padded)
    assert torch.isfinite(frame).all()


@pytest.mark.parametrize(
    ('image_size', 'input_size', 'resized', 'padded'),
    [
        ((480, 640), 96, (96, 128), (96, 128)),
        ((480, 640), 48, (48, 64), (64, 64)),
        ((640, 480), 192, (256, 192), (256, 192)),
        ((3, 2000), 16, (1, 64), (32, 64)),
    ],
)
def test_another_input_size(image_size, input_size, resized, padded):
    prepare_own = Preprocessor(CONFIG, torch.device('cpu'), torch.float32, input_size)
    image = random_image(*image_size)
    frame, geometry = prepare_own(image)
    assert geometry == Geometry(image_size, resized, padded)
    expected, _ = prepare(image, replace(CONFIG, test_size=input_size))
    assert torch.equal(frame, expected)


def test_input_sizes_are_whole_patches():
    for input_size in (16, 32, 48, 96, 2048):
        check_input_size(input_size, CONFIG)
    for input_size in (0, -16, 8, 100, 2064, 96.0, True, '96'):
        with pytest.raises(ValueError, match='multiple of the patch size 16 from 16 to 2048, got'):
            check_input_size(input_size, CONFIG)


def pixels_of(frame, geometry):
    """Network input -> grey levels of the resized image, (H, W, 3)."""
    height, width = geometry.resized_size
    mean = torch.tensor(CONFIG.pixel_mean)
    std = torch.tensor(CONFIG.pixel_std)
    return (frame[0, :, :height, :width].permute(1, 2, 0) * std + mean).numpy()


@pytest.mark.parametrize('size', [(480, 640), (211, 123), (50, 71), (96, 130)])
def test_resize_agrees_with_pil(size):
    image = random_image(*size)
    frame, geometry = prepare(image)
    height, width = geometry.resized_size
    expected = np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))
    # PIL rounds to whole grey levels, after the rows and after the columns.
    assert np.abs(pixels_of(frame, geometry) - expected).max() <= 1.01


def test_padding_is_zero_after_normalisation():
    frame, geometry = prepare(random_image(96, 97))
    assert (frame[..., geometry.resized_size[1] :] == 0).all()
    assert (frame[..., : geometry.resized_size[1]] != 0).any()


def test_colours_keep_their_places():
    image = np.zeros((96, 96, 3), np.uint8)
    image[..., 0] = 255
    frame, _ = prepare(image)
    expected = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    assert frame[0, :, 50, 50].tolist() == pytest.approx(expected, abs=1e-5)


def test_any_view_is_taken_without_a_warning():
    image = random_image(120, 160)
    expected, _ = prepare(image)
    padded_rows = np.zeros((120, 170, 3), np.uint8)
    padded_rows[:, :160] = image
    frozen = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    bgr = np.ascontiguousarray(image[..., ::-1])
    views = [padded_rows[:, :160], frozen, bgr[..., ::-1], np.asfortranarray(image)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for view in views:
            assert torch.equal(prepare(view)[0], expected)
        assert not torch.equal(prepare(image[::-1])[0], expected)


@pytest.mark.parametrize('size', [(96, 130), (211, 123), (720, 1280), (1, 1)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_values_are_those_of_the_arithmetic(size, dtype):
    """What tables replace: (resized bytes - mean) / std in float32, which is rounded last."""
    image = random_image(*size)
    frame, geometry = prepare(image, dtype=dtype)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    if geometry.resized_size != size:
        pixels = F.interpolate(
            pixels, geometry.resized_size, mode='bilinear', align_corners=False, antialias=True
        )
    mean = torch.tensor(CONFIG.pixel_mean).view(3, 1, 1)
    inverse_std = 1 / torch.tensor(CONFIG.pixel_std).view(3, 1, 1)
    height, width = geometry.resized_size
    expected = torch.zeros_like(frame)
    expected[..., :height, :width] = ((pixels - mean) * inverse_std).to(dtype)
    assert torch.equal(frame, expected)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
        'image.png',
        None,
    ],
)
def test_bad_images_are_refused(image):
    with pytest.raises(ValueError, match=r'Expected an .*image.*\(H, W, 3\).*uint8.*got'):
        prepare(image)


@pytest.mark.parametrize('size', [(480, 640), (211, 123), (97, 300), (50, 71)])
def test_masks_land_on_the_pixels_they_cover(size):
    """A rectangle drawn into the padded input comes back at its place in the image."""
    geometry = Geometry.of(size, CONFIG)
    (height, width), (padded_height, padded_width) = geometry.resized_size, geometry.padded_size
    top, left, bottom, right = height // 4, width // 3, height // 2, width - 4
    # The grid is a quarter of the input; a soft edge crosses 0 where the rectangle ends.
    rows = (torch.arange(padded_height // 4) + 0.5) * 4
    columns = (torch.arange(padded_width // 4) + 0.5) * 4
    inside_rows = torch.minimum(rows - top, bottom - rows)
    inside_columns = torch.minimum(columns - left, right - columns)
    grid = torch.minimum(inside_rows[:, None], inside_columns[None])
    mask = geometry.to_image(geometry.to_padded(grid[None]))[0] > 0
    assert mask.shape == size
    found_rows, found_columns = mask.nonzero(as_tuple=True)
    scale = size[0] / height, size[1] / width
    edges = [found_rows.min(), found_columns.min(), found_rows.max() + 1, found_columns.max() + 1]
    expected = [top * scale[0], left * scale[1], bottom * scale[0], right * scale[1]]
    for edge, place, axis in zip(edges, expected, (0, 1, 0, 1), strict=True):
        assert abs(float(edge) - place) <= 1.0 + scale[axis]


def test_cells_that_reach_the_image_and_no_others():
    for size in [(96, 97), (211, 123), (97, 300), (123, 211), (3, 2000), (1, 1)]:
        geometry = Geometry.of(size, CONFIG)
        grid = (geometry.padded_size[0] // 4, geometry.padded_size[1] // 4)
        rows, columns = geometry.grid_inside(grid)
        reached = torch.zeros(grid)
        for axis, cells in enumerate(grid):
            for cell in range(cells):
                impulse = torch.zeros(1, *grid)
                impulse.select(axis + 1, cell).fill_(1.0)
                if geometry.to_padded(impulse).any():
                    reached.select(axis, cell).add_(1.0)
        assert (reached == 2.0).nonzero().max(0).values.tolist() == [rows - 1, columns - 1]
        area = np.prod(grid) * geometry.pixels_per_cell(grid)
        share = np.prod(geometry.resized_size) / np.prod(geometry.padded_size)
        assert area * share == pytest.approx(np.prod(size))


def test_test_size_decides_the_input():
    config = replace(CONFIG, test_size=448)
    assert Geometry.of((720, 1280), config).padded_size == (448, 800)
