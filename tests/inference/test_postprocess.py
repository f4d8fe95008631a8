"""Pixels against straightforward implementations that resize every query to the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.inference.scripted import CAT, DOG, IMAGE, Obj, ScriptedNet, make_logits, play
from videomt_ros.inference import VideoStream, postprocess
from videomt_ros.inference.postprocess import (
    instance_pixels,
    panoptic_pixels,
    semantic_pixels,
)
from videomt_ros.inference.preprocess import Geometry

SIZES = [
    Geometry((75, 133), (48, 85), (64, 96)),
    Geometry((48, 85), (48, 85), (64, 96)),
    Geometry((31, 40), (50, 65), (64, 96)),
]


def random_masks(num: int, seed: int) -> torch.Tensor:
    """Smooth blobs, (N, 16, 24)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, num, 4, 6, generator=generator) * 6
    return F.interpolate(coarse, size=(16, 24), mode='bicubic')[0]


def to_image(masks, geometry, between=lambda x: x):
    """Both published resizes, mask by mask."""
    images = []
    for mask in masks:
        mask = F.interpolate(
            mask[None, None], size=geometry.padded_size, mode='bilinear', align_corners=False
        )
        mask = between(mask[..., : geometry.resized_size[0], : geometry.resized_size[1]])
        mask = F.interpolate(mask, size=geometry.image_size, mode='bilinear', align_corners=False)
        images.append(mask[0, 0].numpy())
    return np.stack(images)


def instance_reference(masks, scores, geometry, threshold):
    logits = to_image(masks, geometry)
    probs = 1 / (1 + np.exp(-logits.astype(np.float64)))
    products = np.where(probs >= threshold, scores[:, None, None] * probs, 0)
    return np.where(products.max(0) > 0, products.argmax(0) + 1, 0)


def panoptic_reference(masks, scores, geometry, threshold, overlap):
    probs = to_image(masks, geometry, torch.sigmoid)
    winner = (scores[:, None, None].astype(np.float32) * probs).argmax(0)
    result = np.zeros(geometry.image_size, int)
    for k, prob in enumerate(probs):
        area, won = (prob >= threshold).sum(), (winner == k).sum()
        if area and won / area >= overlap:
            result[(winner == k) & (prob >= threshold)] = k + 1
    return result


def semantic_reference(class_logits, masks, geometry):
    probs = to_image(masks, geometry, torch.sigmoid)
    class_probs = class_logits.softmax(-1)[:, :-1].numpy()
    return np.einsum('qk,qhw->khw', class_probs, probs)


@pytest.mark.parametrize('geometry', SIZES)
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_instances_equal_the_reference(geometry, threshold):
    masks, scores = random_masks(20, 1), np.random.default_rng(1).uniform(0.2, 1, 20)
    result = instance_pixels(masks, scores, geometry, threshold)
    assert (result == instance_reference(masks, scores, geometry, threshold)).all()
    assert len(np.unique(result)) > 5


@pytest.mark.parametrize('geometry', SIZES)
@pytest.mark.parametrize('overlap', [0.0, 0.5, 0.8, 1.0])
def test_panoptic_equals_the_reference(geometry, overlap):
    for seed in range(4):
        masks, scores = random_masks(10, seed), np.random.default_rng(seed).uniform(0.2, 1, 10)
        result = panoptic_pixels(masks, scores, geometry, 0.5, overlap)
        assert (result == panoptic_reference(masks, scores, geometry, 0.5, overlap)).all()


@pytest.mark.parametrize('geometry', SIZES)
def test_semantic_equals_the_reference(geometry):
    masks = random_masks(20, 2)
    class_logits = torch.randn(20, 12, generator=torch.Generator().manual_seed(3)) * 2
    classes, shares = semantic_pixels(class_logits, masks, geometry)
    expected = semantic_reference(class_logits, masks, geometry)
    # Where two classes are equal to the last bit, either may win.
    top = np.sort(expected, 0)
    clear = top[-1] - top[-2] > 1e-5
    assert clear.mean() > 0.99
    assert (classes == expected.argmax(0))[clear].all()
    assert np.allclose(shares, expected.max(0) / expected.sum(0), atol=1e-5)
    assert len(np.unique(classes)) > 2


def test_nothing_to_draw():
    none, scores = torch.zeros(0, 16, 24), np.zeros(0)
    for geometry in SIZES:
        assert not instance_pixels(none, scores, geometry, 0.5).any()
        assert not panoptic_pixels(none, scores, geometry, 0.5, 0.8).any()


def test_thresholds_at_their_limits():
    masks, scores = random_masks(3, 1), np.array([0.5, 0.6, 0.7])
    assert instance_pixels(masks, scores, SIZES[0], 0.0).all()
    assert not instance_pixels(masks, scores, SIZES[0], 1.0).any()


class PixelScript(ScriptedNet):
    """Random blobs at a real scale: the image is resized and padded."""

    def __init__(self, seed, task):
        generator = torch.Generator().manual_seed(seed)
        class_logits = torch.randn(20, 5, generator=generator) * 2
        super().__init__([(class_logits, random_masks(20, seed))], task)
        object.__setattr__(self.config, 'test_size', 48)
        object.__setattr__(self.config, 'size_divisor', 32)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('size', [(75, 133), (31, 55)])
def test_choosing_queries_first_changes_nothing(seed, size):
    """All queries resized to the image, filtered there, give the same picture."""
    net = PixelScript(seed, 'instance')
    stream = VideoStream(net, confirm_frames=1, min_area=1, speck_share=0.0, score_threshold=0.4)
    result = stream.push(np.zeros((*size, 3), np.uint8), 0)
    class_logits, masks = net.frames[0]
    geometry = Geometry.of(size, net.config)
    assert geometry.padded_size == (64, 96)
    scores = class_logits.double().softmax(-1)[:, :-1].max(-1).values.numpy()
    images = to_image(masks, geometry)
    passing = [q for q in range(20) if scores[q] >= 0.4 and (images[q] >= 0).any()]
    kept = without_duplicates(passing, masks, scores, class_logits, geometry)
    assert len(kept) > 3
    expected = instance_reference(masks[kept], scores[kept], geometry, 0.5)
    numbers = {(k + 1): (expected == k + 1) for k in range(len(kept)) if (expected == k + 1).any()}
    assert len(result.segments) == len(numbers)
    for segment in result.segments:
        assert any((result.mask(segment.track_id) == mask).all() for mask in numbers.values())


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_only_the_masks_of_kept_queries_are_resized(task, monkeypatch):
    objects = [Obj(q, CAT, 12 * n, 4) for n, q in enumerate((7, 90, 199))]
    numbers = []
    name = f'{task}_pixels'
    function = getattr(postprocess, name)

    def recorded(masks, *args):
        numbers.append(len(masks))
        return function(masks, *args)

    monkeypatch.setattr(postprocess, name, recorded)
    (result,) = play([objects], task=task, num_queries=200)
    assert len(result.segments) == 3
    assert numbers == [3]


class NumbersRead(TorchDispatchMode):
    """Counts the tensors that are read as Python numbers, each of which waits for the device."""

    # In inference mode the first two are seen instead of the last, which they call.
    OPERATIONS = (
        torch.ops.aten.item.default,
        torch.ops.aten.is_nonzero.default,
        torch.ops.aten._local_scalar_dense.default,
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in self.OPERATIONS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_no_tensor_is_read_as_a_python_number(tiny_net, task):
    stream = VideoStream(
        tiny_net, task, score_threshold=0.0, mask_threshold=0.3, confirm_frames=1, min_area=1
    )
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    with NumbersRead() as numbers:
        results = [stream.push(image, t) for t in range(3)]
    assert all(result.segments for result in results)
    assert numbers.count == 0
    with torch.inference_mode(), NumbersRead() as numbers:
        float(stream.outputs.mask_logits.amax())
        bool(stream.outputs.mask_logits.any())
    assert numbers.count == 2


def without_duplicates(queries, masks, scores, class_logits, geometry):
    """Queries by falling score, less those that repeat one before or are part of one."""
    rows, columns = geometry.grid_inside((16, 24))
    grids = (masks[:, :rows, :columns] >= 0).numpy()
    classes = class_logits[:, :-1].argmax(-1)
    stay = []
    for q in sorted(queries, key=lambda q: -scores[q]):
        if all((grids[q] & grids[p]).sum() < 0.4 * (grids[q] | grids[p]).sum() for p in stay):
            stay.append(q)

    def is_part(q, p):
        small, large = grids[q].sum(), grids[p].sum()
        inside = (grids[q] & grids[p]).sum() >= 0.9 * small
        return bool(inside and 0.25 * large <= small < large and classes[q] == classes[p])

    return [q for q in stay if not any(is_part(q, p) for p in stay)]


def test_a_mask_in_the_padding_is_not_seen():
    net = PixelScript(0, 'instance')
    class_logits, masks = make_logits([], 20, (16, 24))
    class_logits[0] = make_logits([Obj(0, CAT, 0, 0)], 20, (16, 24))[0][0]
    masks[0, 14:] = 8.0
    net.frames = [(class_logits, masks)]
    result = VideoStream(net, confirm_frames=1, min_area=0).push(
        np.zeros((75, 133, 3), np.uint8), 0
    )
    assert result.segments == ()


def test_a_broken_query_does_no_harm():
    cat, dog = Obj(0, CAT, 4, 4), Obj(1, DOG, 20, 20)
    class_logits, masks = make_logits([cat, dog])
    class_logits[1] = float('nan')
    masks[2] = float('nan')
    whole = make_logits([cat, dog])
    for task in ('instance', 'panoptic'):
        net = ScriptedNet([(class_logits, masks), whole, (class_logits, masks), whole], task)
        stream = VideoStream(net, confirm_frames=1)
        results = [stream.push(IMAGE, t) for t in range(4)]
        found = [{s.class_name: s.track_id for s in r.segments} for r in results]
        assert found == [{'cat': 1}, {'cat': 1, 'dog': 2}] * 2


def test_panoptic_drops_what_others_cover_and_counts_it_as_not_seen():
    cat = Obj(0, CAT, 10, 10, 10, 10, score=0.9)
    dog = Obj(1, DOG, 10, 14, 10, 14, score=0.99)  # over 6 of the cat's 10 columns
    names = [s.class_name for s in play([[cat, dog]], task='panoptic')[0].segments]
    assert names == ['dog']
    half = play([[cat, dog]], task='panoptic', overlap_threshold=0.3)[0]
    assert [s.class_name for s in half.segments] == ['dog', 'cat']


def test_panoptic_wants_a_class_likelier_than_no_object():
    cat = Obj(0, CAT, 10, 10)
    class_logits, masks = make_logits([cat])
    class_logits[0] = torch.tensor([0.4, 0.01, 0.01, 0.01, 0.57]).log()
    for task, count in (('instance', 1), ('panoptic', 0)):
        stream = VideoStream(
            ScriptedNet([(class_logits, masks)], task), confirm_frames=1, score_threshold=0.3
        )
        assert len(stream.push(IMAGE, 0).segments) == count
