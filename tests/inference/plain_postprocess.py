"""The rules that decide pixels in their plainest form: whole images, one mask after the other.

What `inference/postprocess.py` computes in parts must be equal to this, pixel by pixel.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from videomt_ros.inference.preprocess import Geometry


def instance_pixels(mask_logits, scores, geometry, mask_threshold):
    """(N, h, w) -> (H, W): k + 1 for the largest score x probability above the threshold."""
    best, winner = torch.zeros(geometry.image_size), np.zeros(geometry.image_size, int)
    for k, logits in enumerate(mask_logits.float()):
        probs = geometry.to_image(geometry.to_padded(logits[None]))[0].sigmoid()
        values = F.threshold(probs, mask_threshold, 0.0) * np.float32(scores[k])
        winner[(values > best).numpy()] = k + 1
        best = torch.maximum(best, values)
    return winner


def panoptic_contest(mask_logits, scores, geometry, mask_threshold):
    """The winner of each pixel inside its own mask, what each segment won, and its area."""
    best, winner = torch.zeros(geometry.image_size), np.zeros(geometry.image_size, int)
    masks = np.zeros((len(scores), *geometry.image_size), bool)
    for k, logits in enumerate(mask_logits.float()):
        probs = geometry.to_image(geometry.to_padded(logits[None]).sigmoid())[0]
        masks[k] = (probs >= mask_threshold).numpy()
        values = probs * np.float32(scores[k])
        winner[(values > best).numpy()] = k + 1
        best = torch.maximum(best, values)
    won = np.array([(winner == k + 1).sum() for k in range(len(scores))], int)
    pixels = np.zeros(geometry.image_size, int)
    for k, mask in enumerate(masks):
        pixels[mask & (winner == k + 1)] = k + 1
    return pixels, won, masks.sum((1, 2))


def semantic_sums(class_logits, mask_logits, geometry):
    """The sum over the queries of class probability x mask probability, (K, H, W)."""
    class_probs = class_logits.float().softmax(-1)[:, :-1]
    sums = torch.zeros(class_probs.shape[1], *geometry.image_size)
    for probs, logits in zip(class_probs, mask_logits.float(), strict=True):
        mask = geometry.to_image(geometry.to_padded(logits[None]).sigmoid())
        sums += probs[:, None, None] * mask
    return sums.numpy()


def doubtful(mask_logits, scores, geometry, mask_threshold, is_panoptic=False):
    """Pixels that the rounding of sums in another order may decide in another way, (H, W)."""
    probs = geometry.to_padded(mask_logits.float())
    probs = geometry.to_image(probs.sigmoid() if is_panoptic else probs)
    probs = probs if is_panoptic else probs.sigmoid()
    close = ((probs - mask_threshold).abs() < 1e-5).any(0)
    values = probs * torch.tensor(scores, dtype=torch.float32)[:, None, None]
    if not is_panoptic:
        values[probs <= mask_threshold] = 0.0
    if len(values) > 1:
        first, second = values.topk(2, 0).values
        close |= (first > 0) & (first - second < 1e-5)
    return close.numpy()


def assert_same(result, expected, is_doubtful):
    """Pixels are equal, except for one or two that rounding decides, if any."""
    wrong = result != expected
    assert not (wrong & ~is_doubtful).any()
    assert wrong.sum() <= 2


def regions(pixels, count):
    """Area and box of each segment; None if it has no pixels."""
    found = []
    for k in range(1, count + 1):
        rows, columns = np.nonzero(pixels == k)
        box = None
        if len(rows):
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        found.append(box and (len(rows), box))
    return found


def random_geometry(rng):
    """Sizes of a frame that divide by nothing, and a mask grid, (h, w)."""
    image, resized = (tuple(int(side) for side in rng.integers(1, 150, 2)) for _ in range(2))
    if rng.random() < 0.2:
        resized = image  # then the second resize is left out
    divisor = int(rng.choice([1, 16, 32]))
    padded = tuple(-(-side // divisor) * divisor for side in resized)
    grid = tuple(max(1, side // 4) for side in padded)
    return Geometry(image, resized, padded), grid


def random_logits(rng, count, grid):
    """Blobs of several sizes, some beyond the border, and noise; (N, h, w)."""
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    logits = []
    for _ in range(count):
        y, x = rng.uniform(-0.1, 1.1, 2) * grid
        height, width = rng.uniform(0.03, 0.5, 2) * grid + 0.5
        distance = np.hypot((rows - y) / height, (columns - x) / width)
        noise = rng.normal(size=grid) * rng.choice([0.0, 0.3, 3.0])
        logits.append((1 - distance) * rng.choice([2.0, 8.0, 40.0]) + noise)
    return torch.tensor(np.array(logits).reshape(count, *grid), dtype=torch.float32)
