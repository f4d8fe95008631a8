"""Losses of a clip, on cases whose answer is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.made_engine import made_outputs
from tests.training.losses import losses_of
from videomt_ros.model.network import Outputs
from videomt_ros.training import criterion
from videomt_ros.training.criterion import Criterion, Targets, build_targets
from videomt_ros.training.points import (
    Draws,
    draw_points,
    sample_at,
    sample_masks,
    uncertain_points,
)
from videomt_ros.training.run_settings import LossWeights

SIZE = 16
POINTS = LossWeights(num_points=400, expected_from='first_sight')
WHOLE = torch.ones(1, 2)  # no padding


def draws() -> Draws:
    return draw_points(100, 3.0, 0.75, torch.device('cpu'))


def truth(*boxes: tuple[int, int, int, int] | None) -> torch.Tensor:
    """Draw a box (y0, y1, x0, x1) or nothing into each frame, (T, H, W)."""
    masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
    for mask, box in zip(masks, boxes, strict=True):
        if box:
            mask[box[0] : box[1], box[2] : box[3]] = True
    return masks


def perfect(targets: Targets, query_of: list[int], num_queries: int = 4) -> Outputs:
    """Build outputs that equal the targets, with a query for each object."""
    num_frames = targets.masks.shape[1]
    class_logits = torch.zeros(1, num_frames, num_queries, 4)
    class_logits[..., 3] = 20.0
    mask_logits = torch.full((1, num_frames, num_queries, SIZE, SIZE), -20.0)
    for n, query in enumerate(query_of):
        first = int(targets.masks[n].flatten(1).any(1).nonzero()[0])
        class_logits[0, first:, query, 3] = 0.0
        class_logits[0, first:, query, targets.class_ids[n]] = 20.0
        mask_logits[0, :, query] = targets.masks[n] * 40.0 - 20.0
    return made_outputs(class_logits, mask_logits)


@pytest.fixture
def targets() -> Targets:
    """Object 0 is visible from frame 0 but hidden in frame 1; object 1 is visible from frame 1."""
    masks = torch.stack(
        [
            truth((2, 8, 2, 8), None, (3, 9, 3, 9)),
            truth(None, (9, 15, 9, 15), (8, 14, 8, 14)),
        ]
    )
    return build_targets(torch.tensor([0, 0]), torch.tensor([1, 2]), masks, 1)


def test_perfect_outputs_cost_nothing_but_blurred_borders(targets):
    torch.manual_seed(0)
    losses = losses_of(POINTS, perfect(targets, [2, 0]), targets)
    assert losses['class'] < 1e-3
    assert losses['dice'] < 1.0  # of 5; points gather at the border, where truth is in between
    lost = perfect(targets, [2, 0])
    lost.mask_logits[0, 2] = lost.mask_logits[0, 2].flip(0)  # in frame 2, both are elsewhere
    assert losses_of(POINTS, lost, targets)['dice'] > losses['dice'] + 1.0


def test_each_layer_has_its_own_match(targets):
    layers = (perfect(targets, [1, 3]), perfect(targets, [2, 0]))
    matches = Criterion(POINTS).match(layers, targets)
    assert matches.tolist() == [[1, 3], [2, 0]]


@pytest.mark.parametrize(('expected_from', 'first'), [('clip', 0), ('first_sight', 1)])
def test_class_loss_is_the_weighted_mean_of_the_labels(targets, expected_from, first):
    """An object's class is expected while it is hidden, before its first sight only if asked."""
    torch.manual_seed(0)
    outputs = perfect(targets, [2, 0])
    outputs = outputs._replace(class_logits=torch.randn_like(outputs.class_logits))
    weights = LossWeights(
        num_points=400, no_object_weight=0.25, mask_weight=1e6, expected_from=expected_from
    )
    losses = losses_of(weights, outputs, targets)
    labels = torch.full((3, 4), 3)
    labels[:, 2] = 1
    labels[first:, 0] = 2
    log_likelihood = F.log_softmax(outputs.class_logits[0], dim=-1)
    total = count = 0.0
    for t in range(3):
        for q in range(4):
            weight = 0.25 if labels[t, q] == 3 else 1.0
            total -= weight * log_likelihood[t, q, labels[t, q]]
            count += weight
    torch.testing.assert_close(losses['class'], 2.0 * total / count)


def test_a_hidden_object_is_taught_an_empty_mask(targets):
    outputs = perfect(targets, [2, 0])
    mask_logits = torch.zeros_like(outputs.mask_logits).requires_grad_()
    mask_logits.data.copy_(outputs.mask_logits.clamp(-1, 1))
    torch.manual_seed(0)
    losses = losses_of(POINTS, outputs._replace(mask_logits=mask_logits), targets)
    losses['mask'].backward()
    assert (mask_logits.grad[0, 1, 2] >= 0).all() and mask_logits.grad[0, 1, 2].sum() > 0
    assert not mask_logits.grad[0, 0, 0].any()  # not seen yet: no mask is expected


def test_points_gather_at_the_border():
    torch.manual_seed(0)
    logits = torch.linspace(-8, 8, SIZE).expand(1, SIZE, SIZE).clone()  # zero in the middle
    points = uncertain_points(logits, draws(), WHOLE)
    assert points.shape == (1, 100, 2)
    distance = (points[0, :, 0] - 0.5).abs()
    assert distance[:75].max() < 0.2  # importance_ratio of them
    assert distance[75:].max() > 0.3


def test_padding_changes_no_loss():
    """A clip of 8 x 16 in a batch of 16 x 32, whose padding shows nothing, and would cost less."""
    generator = torch.Generator().manual_seed(3)
    masks = torch.rand(2, 3, 8, 16, generator=generator) < 0.5
    clip_of, class_ids = torch.tensor([0, 0]), torch.tensor([1, 2])
    logits = torch.randn(1, 3, 4, 8, 16, generator=generator)
    class_logits = torch.randn(1, 3, 4, 4, generator=generator)
    found = []
    for padding, share in (((0, 0, 0, 0), 1.0), ((0, 16, 0, 8), 0.5)):
        extents = torch.full((1, 2), share)
        targets = build_targets(clip_of, class_ids, F.pad(masks, padding), 1, extents)
        torch.manual_seed(0)
        found.append(
            losses_of(POINTS, made_outputs(class_logits, F.pad(logits, padding)), targets)
        )
    for name, loss in found[0].items():
        torch.testing.assert_close(found[1][name], loss)


def test_padding_changes_no_match():
    """Query 0 fits best in the left half, which is the clip, but has a large mask beside it."""
    masks = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    masks[0, 0, 4:12, 2:6] = True
    shown = masks[0, 0] * 2.0 - 1.0
    logits = torch.stack([9.0 * shown, 2.0 * shown])[None, None]
    logits[..., SIZE // 2 + 1 :] = torch.tensor([9.0, -9.0]).view(2, 1, 1)
    outputs = (made_outputs(torch.zeros(1, 1, 2, 4), logits),)
    for width, expected in ((0.5, 0), (1.0, 1)):
        extents = torch.tensor([[width, 1.0]])
        targets = build_targets(torch.tensor([0]), torch.tensor([1]), masks, 1, extents)
        assert Criterion(POINTS).match(outputs, targets).tolist() == [[expected]]


def test_sample_at_reads_pixel_centres():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    points = torch.tensor([[[0.125, 0.125], [0.625, 0.375]]])
    assert sample_at(image, points).tolist() == [[[0.0, 6.0]]]


def test_masks_are_read_as_maps_of_0_and_1_are():
    """The two agree between pixels and at the border, where both fade to 0."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 2, 5, 7, generator=generator) < 0.4
    points = torch.rand(4, 300, 2, generator=generator)
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    objects, frames = torch.tensor([2, 0, 0, 1]), torch.tensor([1, 0, 1, 1])
    for drawn in (points, points[:1]):
        expected = sample_at(masks[objects, frames][:, None].float(), drawn)[:, 0]
        torch.testing.assert_close(sample_masks(masks, objects, frames, drawn), expected)
    assert sample_masks(masks, objects[:0], frames[:0], points[:1]).shape == (0, 300)


def test_every_mask_has_the_candidates_and_the_rest_in_common():
    torch.manual_seed(0)
    rising = torch.linspace(-8, 8, SIZE).expand(SIZE, SIZE)
    logits = torch.stack([rising, rising.T])
    points = uncertain_points(logits, draws(), WHOLE)
    assert torch.equal(points[0, 75:], points[1, 75:])
    across, down = points[0, :75], points[1, :75]
    assert not torch.equal(across, down)
    torch.manual_seed(0)
    candidates = {tuple(point) for point in torch.rand(300, 2).tolist()}
    assert {tuple(point) for point in [*across.tolist(), *down.tolist()]} <= candidates


@pytest.mark.parametrize('num_masks', [0, 1, 5])
def test_any_number_of_masks_takes_points_from_the_same_draws(num_masks):
    drawn = draws()
    points = uncertain_points(torch.zeros(num_masks, 4, 4), drawn, WHOLE)
    assert points.shape == (num_masks, 100, 2)
    for each in points:
        assert torch.equal(each[75:], drawn.rest[0])


def test_losses_do_not_depend_on_how_many_layers_are_sampled_at_a_time(targets, monkeypatch):
    levels = [perfect(targets, query_of) for query_of in ([2, 0], [1, 3], [0, 1])]
    outputs = levels[0]._replace(auxiliary=tuple(levels[1:]))
    found = []
    for limit in (1, 2**30):
        monkeypatch.setattr(criterion, '_SAMPLED_POINTS', limit)
        torch.manual_seed(0)
        found.append(losses_of(POINTS, outputs, targets))
    for name, loss in found[0].items():
        torch.testing.assert_close(found[1][name], loss)
