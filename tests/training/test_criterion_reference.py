"""Matching and losses of a single frame against implementations of others.

Costs and matching: plain numpy and scipy on whole masks. Losses and their gradients: Mask2Former
in `transformers`. For clips the two differ on purpose, because Mask2Former knows no time: there a
loss is a sum per object over the number of objects, here a mean over (object, frame) pairs. The
two are the same for a frame in which every object is visible and finds a query.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerHungarianMatcher,
    Mask2FormerLoss,
)

from tests.made_engine import made_outputs
from tests.training.losses import fix_points, losses_of, random_points
from videomt_ros.model.network import Outputs
from videomt_ros.training import criterion
from videomt_ros.training.criterion import Criterion, Targets, build_targets
from videomt_ros.training.run_settings import LossWeights

NUM_QUERIES, NUM_CLASSES, SIZE = 7, 5, 24


def pixel_centres(size: int) -> Tensor:
    """List pixel centres row by row, (size * size, 2) as x, y in 0..1."""
    line = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(line, line, indexing='ij')
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def random_outputs(seed: int, batch_size: int, mask_size: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    logits = [
        3 * torch.randn(batch_size, 1, NUM_QUERIES, *shape, generator=generator)
        for shape in ((NUM_CLASSES + 1,), (mask_size, mask_size))
    ]
    return made_outputs(*(tensor.requires_grad_() for tensor in logits))


def random_boxes(seed: int, counts: list[int]) -> Targets:
    """Draw as many boxes into each clip of one frame; they may overlap."""
    rng = np.random.default_rng(seed)
    masks = torch.zeros(sum(counts), 1, SIZE, SIZE, dtype=torch.bool)
    for mask in masks:
        y, x = rng.integers(0, SIZE - 4, 2)
        mask[0, y : y + rng.integers(1, SIZE // 2), x : x + rng.integers(1, SIZE // 2)] = True
    class_ids = torch.from_numpy(rng.integers(0, NUM_CLASSES, sum(counts)))
    clip_of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return build_targets(clip_of, class_ids, masks, len(counts))


def partition(seed: int, counts: list[int]) -> Targets:
    """Draw segments that cover each pixel once and consist of many pieces."""
    rng = np.random.default_rng(seed)
    masks, class_ids = [], []
    for count in counts:
        segment_of = torch.from_numpy(rng.integers(0, max(1, count), (SIZE // 3, SIZE // 3)))
        segment_of = segment_of.repeat_interleave(3, 0).repeat_interleave(3, 1)
        masks += [(segment_of == n)[None] for n in range(count)]
        class_ids.append(torch.from_numpy(rng.permutation(NUM_CLASSES)[:count]))
    clip_of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return build_targets(clip_of, torch.cat(class_ids), torch.stack(masks), len(counts))


def plain_costs(outputs: Outputs, targets: Targets, weights: LossWeights) -> np.ndarray:
    """Compute costs (N, Q) over all pixels in double precision, one pair at a time."""
    costs = np.zeros((len(targets.class_ids), NUM_QUERIES))
    class_logits = outputs.class_logits.detach().double().numpy()
    mask_logits = outputs.mask_logits.detach().double().numpy()
    rows = zip(targets.clip_of, targets.class_ids, targets.masks, strict=True)
    for n, (clip, class_id, mask) in enumerate(rows):
        for q in range(NUM_QUERIES):
            exponents = np.exp(class_logits[clip, 0, q])
            inside = 1 / (1 + np.exp(-mask_logits[clip, 0, q]))
            truth = mask[0].numpy()
            cross_entropy = -np.where(truth, np.log(inside), np.log(1 - inside)).mean()
            dice = 1 - (2 * inside[truth].sum() + 1) / (inside.sum() + truth.sum() + 1)
            costs[n, q] = (
                -weights.class_match_weight * exponents[class_id] / exponents.sum()
                + weights.mask_weight * cross_entropy
                + weights.dice_weight * dice
            )
    return costs


@pytest.fixture
def watched_costs(monkeypatch) -> list[Tensor]:
    """Results of `pair_costs` in the criterion, (L, N, Q) for each clip."""
    answers: list[Tensor] = []
    pair_costs = criterion.pair_costs

    def watched(*arguments) -> Tensor:
        answers.append(pair_costs(*arguments))
        return answers[-1]

    monkeypatch.setattr(criterion, 'pair_costs', watched)
    return answers


@pytest.mark.parametrize('draw', [random_boxes, partition])
@pytest.mark.parametrize('seed', range(2))
def test_matching_is_that_of_scipy_on_whole_masks(monkeypatch, watched_costs, draw, seed):
    fix_points(monkeypatch, pixel_centres(SIZE))
    weights = LossWeights(num_points=SIZE * SIZE)
    targets, outputs = draw(seed, [3, 0, 4]), random_outputs(seed, 3, SIZE)
    matches = Criterion(weights).match((outputs,), targets)[0]
    expected = plain_costs(outputs, targets, weights)
    np.testing.assert_allclose(torch.cat(watched_costs, 1)[0], expected, rtol=1e-5, atol=1e-5)
    for clip in (0, 2):
        rows = np.flatnonzero(targets.clip_of.numpy() == clip)
        assert matches[rows].tolist() == linear_sum_assignment(expected[rows])[1].tolist()


def test_drawn_points_stand_for_the_whole_mask(watched_costs):
    """Points lie evenly over the frame: over very many, the costs are those of all pixels.

    Not quite: within half a pixel of the frame's border, reading between pixels fades to 0, in
    Mask2Former as here.
    """
    torch.manual_seed(0)
    size = 4 * SIZE
    masks = torch.zeros(2, 1, size, size, dtype=torch.bool)
    masks[0, 0, :48, :64], masks[1, 0, 24:, 16:] = True, True
    targets = build_targets(torch.tensor([0, 0]), torch.tensor([1, 4]), masks, 1)
    slopes = 6 * torch.randn(1, 1, NUM_QUERIES, 2, 1, 1)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing='ij')
    outputs = random_outputs(0, 1, 1)._replace(
        mask_logits=slopes[..., 0, :, :] * x + slopes[..., 1, :, :] * y
    )
    weights = LossWeights(num_points=200_000)
    Criterion(weights).match((outputs,), targets)
    expected = plain_costs(outputs, targets, weights)
    np.testing.assert_allclose(watched_costs[0][0], expected, rtol=0.02, atol=0.05)


def mask2former(weights: LossWeights) -> Mask2FormerLoss:
    config = Mask2FormerConfig(
        num_labels=NUM_CLASSES,
        class_weight=weights.class_match_weight,
        mask_weight=weights.mask_weight,
        dice_weight=weights.dice_weight,
        no_object_weight=weights.no_object_weight,
        train_num_points=weights.num_points,
        oversample_ratio=weights.oversample_ratio,
        importance_sample_ratio=weights.importance_ratio,
    )
    return Mask2FormerLoss(config, {})


def labels_of(targets: Targets, batch_size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Split masks and classes by image, as Mask2Former takes them."""
    rows = [targets.clip_of == clip for clip in range(batch_size)]
    return [targets.masks[r, 0].float() for r in rows], [targets.class_ids[r] for r in rows]


WEIGHTS = LossWeights(
    class_weight=2.0, mask_weight=5.0, dice_weight=5.0, class_match_weight=2.0,
    no_object_weight=0.1, num_points=96, oversample_ratio=3.0, importance_ratio=0.75,
)  # fmt: skip


@pytest.mark.parametrize('draw', [random_boxes, partition])
@pytest.mark.parametrize('seed', range(2))
def test_matching_is_that_of_mask2former(monkeypatch, draw, seed):
    fix_points(monkeypatch, random_points(96, seed))
    targets, outputs = draw(seed, [3, 0, 4]), random_outputs(seed, 3, SIZE // 4)
    masks, class_ids = labels_of(targets, 3)
    matcher = Mask2FormerHungarianMatcher(2.0, 5.0, 5.0, num_points=96)
    theirs = matcher(outputs.mask_logits[:, 0], outputs.class_logits[:, 0], masks, class_ids)
    ours = Criterion(WEIGHTS).match((outputs,), targets)[0]
    for clip, (queries, objects) in enumerate(theirs):
        assert ours[targets.clip_of == clip][objects].tolist() == queries.tolist()


@pytest.mark.parametrize('draw', [random_boxes, partition])
@pytest.mark.parametrize('seed', range(2))
def test_losses_and_gradients_are_those_of_mask2former(monkeypatch, draw, seed):
    fix_points(monkeypatch, random_points(288, seed))
    targets, outputs = draw(seed, [3, 0, 4]), random_outputs(seed, 3, SIZE // 4)
    leaves = (outputs.class_logits, outputs.mask_logits)
    theirs = mask2former(WEIGHTS)(
        outputs.mask_logits[:, 0], outputs.class_logits[:, 0], *labels_of(targets, 3)
    )
    # The weights lie in our losses; there they come later.
    expected = {
        'class': 2.0 * theirs['loss_cross_entropy'],
        'mask': 5.0 * theirs['loss_mask'],
        'dice': 5.0 * theirs['loss_dice'],
    }
    losses = losses_of(WEIGHTS, outputs, targets)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-5)
        for ours, other in zip(
            torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True),
            torch.autograd.grad(expected[name], leaves, retain_graph=True, allow_unused=True),
            strict=True,
        ):
            assert (ours is None) == (other is None)
            if ours is not None:
                torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)


def test_each_supervised_layer_is_compared_as_mask2former_does(monkeypatch):
    fix_points(monkeypatch, random_points(288, 9))
    targets, layers = random_boxes(9, [2, 3]), [random_outputs(s, 2, SIZE // 4) for s in range(3)]
    auxiliary = [
        {
            'masks_queries_logits': layer.mask_logits[:, 0],
            'class_queries_logits': layer.class_logits[:, 0],
        }
        for layer in layers[:2]
    ]
    theirs = mask2former(WEIGHTS)(
        layers[2].mask_logits[:, 0],
        layers[2].class_logits[:, 0],
        *labels_of(targets, 2),
        auxiliary,
    )
    losses = losses_of(WEIGHTS, layers[2]._replace(auxiliary=tuple(layers[:2])), targets)
    for name, key in (
        ('class', 'loss_cross_entropy'), ('mask', 'loss_mask'), ('dice', 'loss_dice')
    ):  # fmt: skip
        weight = 2.0 if name == 'class' else 5.0
        expected = weight * (theirs[key] + theirs[f'{key}_0'] + theirs[f'{key}_1'])
        torch.testing.assert_close(losses[name], expected, rtol=1e-5, atol=1e-5)


def test_objects_without_a_query_are_left_out_of_the_mean(monkeypatch):
    """Unlike ours, Mask2Former's mean counts objects that found no query too."""
    fix_points(monkeypatch, random_points(288, 3))
    targets, outputs = random_boxes(3, [NUM_QUERIES + 2]), random_outputs(3, 1, SIZE // 4)
    theirs = mask2former(WEIGHTS)(
        outputs.mask_logits[:, 0], outputs.class_logits[:, 0], *labels_of(targets, 1)
    )
    losses = losses_of(WEIGHTS, outputs, targets)
    expected = 5.0 * theirs['loss_dice'] * (NUM_QUERIES + 2) / NUM_QUERIES
    torch.testing.assert_close(losses['dice'], expected, rtol=1e-5, atol=1e-5)
