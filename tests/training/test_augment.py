"""Variations of clips: images and masks keep together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from videomt_ros.inference.preprocess import Preprocessor
from videomt_ros.training.augment import ClipTransform, draw_transform
from videomt_ros.training.run_settings import Augmentation

PLAIN = {'crop_probability': 0.0, 'flip_probability': 0.0, 'max_rotation_deg': 0.0}


def test_a_flip_turns_image_ids_and_mask_alike():
    transform = ClipTransform((0, 0, 1, 3), (1, 3), flip=True)
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    assert np.array_equal(transform.image(image, 0), image[:, ::-1])
    ids = np.array([[1, 2, 700]], np.uint16)
    assert transform.ids(ids, 0).tolist() == [[700, 2, 1]]
    assert transform.mask(ids == 1, 0).tolist() == [[False, False, True]]


def test_a_crop_cuts_image_and_mask_alike():
    transform = ClipTransform((1, 2, 3, 4), (2, 2), flip=False)
    ids = np.arange(20, dtype=np.uint16).reshape(4, 5)
    assert transform.ids(ids, 0).tolist() == [[7, 8], [12, 13]]
    image = np.repeat(ids.astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(transform.image(image, 0)[..., 0], [[7, 8], [12, 13]])
    assert not transform.mask(ids == 0, 0).any()


def test_a_resize_takes_the_nearest_pixel_and_invents_no_id():
    ids = np.array([[3, 9]], np.uint16)
    larger = ClipTransform((0, 0, 1, 2), (2, 4), flip=False).ids(ids, 0)
    assert larger.tolist() == [[3, 3, 9, 9]] * 2
    # A third of 6 pixels: the middle of each three, 1 and 4.
    ids = np.arange(6, dtype=np.uint16)[None]
    assert ClipTransform((0, 0, 1, 6), (1, 2), flip=False).ids(ids, 0).tolist() == [[1, 4]]


def test_masks_turn_as_images_do():
    rng = np.random.default_rng(0)
    augmentation = Augmentation(
        (96,), 128, crop_probability=0.5, flip_probability=0.5, max_rotation_deg=15
    )
    mask = np.zeros((60, 80), bool)
    mask[10:30, 15:50] = True
    image = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    for _ in range(20):
        transform = draw_transform(rng, mask.shape, augmentation, turned_frames=3)
        shown = [transform.image(image, t)[..., 0] > 127 for t in range(3)]
        turned = [transform.mask(mask, t) for t in range(3)]
        as_ids = [transform.ids(mask.astype(np.uint16), t) for t in range(3)]
        for one, other, third in zip(shown, turned, as_ids, strict=True):
            assert np.array_equal(other, third)
            # They may differ along the border, by about a pixel.
            assert (one & other).sum() >= 0.9 * (one | other).sum()
        assert not np.array_equal(turned[0], turned[1])


def test_angles_stay_within_the_limit_and_differ_by_frame():
    rng = np.random.default_rng(1)
    augmentation = Augmentation((64,), 64, max_rotation_deg=15)
    degrees = []
    for _ in range(50):
        transform = draw_transform(rng, (40, 40), augmentation, turned_frames=4)
        angles = [math.degrees(math.atan2(m[0, 1], m[0, 0])) for m in transform.turns]
        assert len(set(angles)) == 4
        assert angles in (sorted(angles), sorted(angles, reverse=True))
        degrees += angles
    assert -15 <= min(degrees) < -13
    assert 13 < max(degrees) <= 15


def test_without_variations_only_the_size_changes():
    rng = np.random.default_rng(2)
    transform = draw_transform(rng, (30, 40), Augmentation((60,), 100, **PLAIN))
    assert transform == ClipTransform((0, 0, 30, 40), (60, 80), flip=False)
    # 40 to 100 pixels is 2.5 times; 30 becomes 75 rather than 90.
    transform = draw_transform(rng, (30, 40), Augmentation((90,), 100, **PLAIN))
    assert transform.size == (75, 100)


@pytest.mark.parametrize('size', [(90, 160), (160, 90), (720, 1280), (1, 1), (7, 400)])
def test_sizes_keep_their_limits(size):
    rng = np.random.default_rng(3)
    augmentation = Augmentation((32, 48, 64), 96)
    flips, crops = 0, 0
    for _ in range(300):
        transform = draw_transform(rng, size, augmentation)
        top, left, bottom, right = transform.crop
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        assert max(transform.size) <= 96
        assert min(transform.size) in (32, 48, 64) or max(transform.size) == 96
        ratio = (bottom - top) / (right - left)
        height, width = transform.size
        assert abs(height - width * ratio) <= max(1, ratio)  # the aspect, up to a pixel
        flips += transform.flip
        crops += transform.crop != (0, 0, *size)
    assert 100 < flips < 200
    if min(size) > 20:
        assert 100 < crops < 200


def test_a_crop_has_the_sides_of_the_recipe():
    rng = np.random.default_rng(4)
    augmentation = Augmentation((320,), 768, crop_probability=1.0)
    shares = []
    for _ in range(500):
        top, left, bottom, right = draw_transform(rng, (500, 5000), augmentation).crop
        shares.append((bottom - top) / 500)
        # From 384 / 600 to 600 / 400 of 500 pixels, for images of short side 400 to 600.
        assert 319 <= right - left <= 751
    assert 0.64 - 0.01 <= min(shares) < 0.7  # 384 / 600
    assert max(shares) == 1


def test_training_sees_what_a_stream_sees(tiny_config):
    image = np.random.default_rng(5).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    seen, geometry = Preprocessor(tiny_config, torch.device('cpu'), torch.float32)(image)
    size = geometry.resized_size
    assert min(size) < 90
    augmentation = Augmentation((min(size),), 1000, **PLAIN)
    ours = draw_transform(np.random.default_rng(0), (90, 120), augmentation).image(image, 0)
    assert ours.shape == (*size, 3)
    mean, std = np.array(tiny_config.pixel_mean), np.array(tiny_config.pixel_std)
    stream = seen[0, :, : size[0], : size[1]].permute(1, 2, 0).numpy() * std + mean
    assert np.abs(ours - stream).max() < 1.01  # grey levels
