"""Each object takes one query, once."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import torch
import torch.nn.functional as F

from videomt_ros.training.matcher import assign, first_visible, frame_groups, pair_costs


def test_first_visible():
    masks = torch.zeros(3, 4, 2, 2, dtype=torch.bool)
    masks[0, 0, 0, 0] = masks[0, 2, 1, 1] = True
    masks[1, 3] = True
    assert first_visible(masks).tolist() == [0, 3, 4]


def test_pair_costs_equal_the_formulas_one_by_one():
    generator = torch.Generator().manual_seed(0)
    class_logits = torch.randn(4, 2, 3, 5, generator=generator)
    point_logits = 9 * torch.randn(4, 2, 3, 11, generator=generator)
    targets = torch.rand(3, 11, generator=generator)
    class_ids = torch.tensor([3, 1, 1])
    frame_of, slot_of = np.array([0, 1, 1]), np.array([0, 0, 1])
    costs = pair_costs(
        class_logits, point_logits, class_ids, targets, frame_of, slot_of, (2.0, 5.0, 7.0)
    )
    assert costs.shape == (4, 3, 3)
    for layer, n, q in product(range(4), range(3), range(3)):
        frame = frame_of[n]
        probability = class_logits[layer, frame, q].softmax(0)[class_ids[n]]
        p = point_logits[layer, frame, q].double().sigmoid()
        bce = F.binary_cross_entropy(p, targets[n].double())
        dice = 1 - (2 * (p * targets[n]).sum() + 1) / (p.sum() + targets[n].sum() + 1)
        expected = -2 * probability + 5 * bce + 7 * dice
        torch.testing.assert_close(costs[layer, n, q], expected.float())


def test_objects_are_grouped_by_clip_and_then_by_time():
    clip_of, first = np.array([1, 0, 1, 0, 1]), np.array([2, 1, 0, 1, 2])
    groups = frame_groups(clip_of, first, np.array([0, 1, 2, 3, 4]))
    assert [group.tolist() for group in groups] == [[1, 3], [2], [0, 4]]
    assert [group.tolist() for group in frame_groups(clip_of, first, np.array([4, 1]))] == [
        [1],
        [4],
    ]
    assert frame_groups(clip_of, first, np.array([], np.int64)) == []


def test_assignment_is_the_cheapest_of_all():
    rng = np.random.default_rng(0)
    costs = rng.random((3, 5)).astype(np.float32)
    query_of = assign(costs, np.zeros(3, np.int64), np.zeros(3, np.int64), num_frames=1)
    cheapest = min(permutations(range(5), 3), key=lambda queries: costs[range(3), queries].sum())
    assert tuple(query_of) == cheapest


def test_a_later_object_leaves_taken_queries_alone():
    # Both would like query 0; the one that is seen first gets it, whatever it costs.
    costs = np.array([[0.0, 9.0, 9.0], [-50.0, 2.0, 1.0]], np.float32)
    clip_of = np.zeros(2, np.int64)
    assert assign(costs, clip_of, np.array([0, 1]), num_frames=3).tolist() == [0, 2]
    assert assign(costs, clip_of, np.array([1, 0]), num_frames=3).tolist() == [1, 0]


def test_clips_do_not_share_queries_and_absent_objects_get_none():
    costs = np.zeros((3, 2), np.float32)
    costs[:, 1] = 1
    query_of = assign(costs, np.array([0, 1, 1]), np.array([0, 0, 2]), num_frames=2)
    assert query_of.tolist() == [0, 0, -1]


def test_more_objects_than_queries():
    costs = np.array([[0.0], [-1.0]], np.float32)
    assert assign(costs, np.zeros(2, np.int64), np.zeros(2, np.int64), 1).tolist() == [-1, 0]


def test_costs_that_are_not_numbers_still_give_each_object_a_query():
    costs = np.array([[np.nan, 1.0], [np.inf, np.nan]], np.float32)
    query_of = assign(costs, np.zeros(2, np.int64), np.zeros(2, np.int64), 1)
    assert sorted(query_of) == [0, 1]
