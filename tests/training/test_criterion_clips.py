"""Matching and losses over time, and under reduced precision, on hand-made clips."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.made_engine import made_outputs
from tests.training.losses import fix_points, losses_of, random_points
from videomt_ros.model.network import Outputs
from videomt_ros.training import criterion
from videomt_ros.training.criterion import Criterion, Targets, build_targets
from videomt_ros.training.run_settings import LossWeights

SIZE, NUM_QUERIES, NUM_CLASSES = 16, 4, 3
WEIGHTS = LossWeights(num_points=200, expected_from='first_sight')
LEFT, RIGHT = (slice(0, 16), slice(0, 6)), (slice(0, 16), slice(10, 16))


def clip_of_masks(*objects: list[tuple[slice, slice] | None]) -> Tensor:
    """Draw masks (N, T, H, W) from an area per object and frame, None where it is hidden."""
    masks = torch.zeros(len(objects), len(objects[0]), SIZE, SIZE, dtype=torch.bool)
    for mask, areas in zip(masks, objects, strict=True):
        for frame, area in zip(mask, areas, strict=True):
            if area is not None:
                frame[area] = True
    return masks


def targets_of(masks: Tensor, class_ids: list[int]) -> Targets:
    clip_of = torch.zeros(len(masks), dtype=torch.int64)
    return build_targets(clip_of, torch.tensor(class_ids, dtype=torch.int64), masks, 1)


def random_outputs(num_frames: int, batch_size: int = 1, num_layers: int = 1) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(num_layers):
        shape = (batch_size, num_frames, NUM_QUERIES)
        class_logits = torch.randn(*shape, NUM_CLASSES + 1, generator=generator)
        mask_logits = torch.randn(*shape, 4, 4, generator=generator)
        layers.append(made_outputs(class_logits, mask_logits))
    return layers[-1]._replace(auxiliary=tuple(layers[:-1]))


def supervised(outputs: Outputs, targets: Targets) -> Tensor:
    """Find by the gradient which query gets a mask loss in which frame, (T, Q) bool."""
    mask_logits = outputs.mask_logits.clone().requires_grad_()
    losses = losses_of(WEIGHTS, outputs._replace(mask_logits=mask_logits), targets)
    (losses['mask'] + losses['dice']).backward()
    return mask_logits.grad[0].flatten(2).any(dim=2)


def test_an_object_keeps_the_query_of_its_first_frame():
    """Object 0 is seen from frame 0 on and takes query 0. Object 1 comes in frame 1, where query 0
    fits it best but is taken, and then query 2. In frame 2 query 3 would fit both, and gets none.
    """
    targets = targets_of(clip_of_masks([LEFT, LEFT, None], [None, RIGHT, RIGHT]), [1, 2])
    mask_logits = torch.full((1, 3, NUM_QUERIES, SIZE, SIZE), -1.0)
    for frame, query, area, logit in (
        (0, 0, LEFT, 3.0), (0, 1, LEFT, 1.0), (1, 0, RIGHT, 3.0), (1, 2, RIGHT, 1.0),
        (2, 3, LEFT, 3.0), (2, 3, RIGHT, 3.0),
    ):  # fmt: skip
        mask_logits[0, frame, query][area] = logit
    outputs = made_outputs(torch.zeros(1, 3, NUM_QUERIES, NUM_CLASSES + 1), mask_logits)
    assert targets.first.tolist() == [0, 1]
    assert Criterion(WEIGHTS).match((outputs,), targets).tolist() == [[0, 2]]
    alone = targets_of(targets.masks[1:], [2])
    assert Criterion(WEIGHTS).match((outputs,), alone).tolist() == [[0]]
    assert supervised(outputs, targets).int().tolist() == [
        [1, 0, 0, 0],
        [1, 0, 1, 0],
        [1, 0, 1, 0],  # object 0 is hidden: its query is taught an empty mask
    ]


def test_a_stuff_class_is_one_object_in_many_pieces():
    """Sky left and right of a thing: one query for both pieces, and none is taught a half."""
    sky = torch.zeros(1, 2, SIZE, SIZE, dtype=torch.bool)
    sky[0, :, :, :6] = sky[0, :, :, 10:] = True
    targets = targets_of(torch.cat([sky, ~sky]), [2, 0])
    mask_logits = torch.full((1, 2, NUM_QUERIES, SIZE, SIZE), -8.0)
    mask_logits[:, :, 0, :, :6] = mask_logits[:, :, 1, :, 10:] = 8.0  # a half each
    mask_logits[:, :, 3] = sky[0] * 16.0 - 8.0
    mask_logits[:, :, 2] = 8.0 - sky[0] * 16.0
    outputs = made_outputs(torch.zeros(1, 2, NUM_QUERIES, NUM_CLASSES + 1), mask_logits)
    matches = Criterion(WEIGHTS).match((outputs,), targets)
    assert matches.tolist() == [[3, 2]]
    assert supervised(outputs, targets).int().tolist() == [[0, 0, 1, 1]] * 2


@pytest.mark.parametrize('seen', [[LEFT, LEFT, RIGHT], [None, RIGHT, None], [None, None, None]])
def test_an_object_that_is_never_visible_changes_nothing(monkeypatch, seen):
    fix_points(monkeypatch, random_points(600, seed=1))
    alone = targets_of(clip_of_masks(seen), [1])
    joined = targets_of(clip_of_masks([None] * 3, seen, [None] * 3), [2, 1, 0])
    outputs = random_outputs(3, num_layers=2)
    expected = losses_of(WEIGHTS, outputs, alone)
    for name, loss in losses_of(WEIGHTS, outputs, joined).items():
        torch.testing.assert_close(loss, expected[name])
    if not any(seen):
        nothing = targets_of(torch.zeros(0, 3, SIZE, SIZE, dtype=torch.bool), [])
        for name, loss in losses_of(WEIGHTS, outputs, nothing).items():
            torch.testing.assert_close(loss, expected[name])


def test_an_empty_clip_beside_others_is_taught_no_object():
    masks = clip_of_masks([LEFT, LEFT], [RIGHT, None])
    targets = build_targets(torch.tensor([0, 2]), torch.tensor([1, 2]), masks, 3)
    outputs = random_outputs(2, batch_size=3)
    class_logits = outputs.class_logits.clone().requires_grad_()
    mask_logits = outputs.mask_logits.clone().requires_grad_()
    losses = losses_of(WEIGHTS, made_outputs(class_logits, mask_logits), targets)
    sum(losses.values()).backward()
    taught = (class_logits.grad < 0).nonzero()  # the logits that are to rise
    assert (taught[taught[:, 0] == 1][:, 3] == NUM_CLASSES).all()
    rising = {tuple(row) for row in taught[taught[:, 3] < NUM_CLASSES][:, [0, 1, 3]].tolist()}
    assert rising == {(0, 0, 1), (0, 1, 1), (2, 0, 2), (2, 1, 2)}
    assert mask_logits.grad.flatten(1).any(dim=1).tolist() == [True, False, True]


@pytest.mark.parametrize('cut', [1, 2])
def test_losses_of_parts_add_up_to_those_of_the_whole(cut):
    """The middle one of three clips has no object, the last has more objects than queries."""
    masks = clip_of_masks([LEFT, LEFT], [None, RIGHT], *[[LEFT, None], [None, RIGHT]] * 3)
    clip_of = torch.tensor([0, 0, 2, 2, 2, 2, 2, 2])
    class_ids = torch.arange(8) % NUM_CLASSES
    outputs = random_outputs(2, batch_size=3, num_layers=3)
    layers = [made_outputs(*layer[:2]) for layer in (*outputs.auxiliary, outputs)]
    totals = torch.tensor([2 + 1 + 3 + 4, 3 * 2 * NUM_QUERIES], dtype=torch.float64)

    def learn(start: int, end: int) -> tuple[dict[str, Tensor], Tensor]:
        mine = (clip_of >= start) & (clip_of < end)
        targets = build_targets(
            clip_of[mine] - start, class_ids[mine], masks[mine], num_clips=end - start
        )
        counted.append(Criterion(WEIGHTS).count_totals(targets, NUM_QUERIES))
        leaves = [
            [logits[start:end].clone().requires_grad_() for logits in layer[:2]]
            for layer in layers
        ]
        *auxiliary, last = (made_outputs(*leaf) for leaf in leaves)
        torch.manual_seed(7)
        whole = last._replace(auxiliary=tuple(auxiliary))
        losses, _ = Criterion(WEIGHTS).chunk(whole, targets, totals)
        sum(losses.values()).backward()
        grads = [torch.cat([x.grad.flatten(1) for x in leaf], dim=1) for leaf in leaves]
        return losses, torch.stack(grads, dim=1)

    counted: list[Tensor] = []
    expected, gradient = learn(0, 3)
    parts = [learn(*ends) for ends in ((0, cut), (cut, 3))]
    assert torch.equal(counted[0], totals)
    assert torch.equal(counted[1] + counted[2], totals)
    for name, loss in expected.items():
        torch.testing.assert_close(parts[0][0][name] + parts[1][0][name], loss)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), gradient)


@pytest.mark.parametrize('seen', [[None] * 2, [None, RIGHT]])
def test_a_part_draws_as_many_numbers_whatever_it_holds(seen):
    """Or what is drawn for its next chunk would depend on the split of the batch."""
    after = []
    for masks in (clip_of_masks([LEFT, LEFT], [LEFT, None]), clip_of_masks(seen)):
        targets = targets_of(masks, [1] * len(masks))
        torch.manual_seed(0)
        losses_of(WEIGHTS, random_outputs(2, num_layers=2), targets)
        after.append(torch.rand(4))
    nothing = targets_of(torch.zeros(0, 2, SIZE, SIZE, dtype=torch.bool), [])
    torch.manual_seed(0)
    losses_of(WEIGHTS, random_outputs(2, num_layers=2), nothing)
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[0], torch.rand(4))


def test_a_part_without_objects_of_a_step_with_some():
    nothing = targets_of(torch.zeros(0, 2, SIZE, SIZE, dtype=torch.bool), [])
    outputs = random_outputs(2)
    leaves = [logits.clone().requires_grad_() for logits in outputs[:2]]
    totals = torch.tensor([3, 4 * NUM_QUERIES], dtype=torch.float64)  # two clips, three pairs
    losses, query_of = Criterion(WEIGHTS).chunk(made_outputs(*leaves), nothing, totals)
    assert query_of.shape == (1, 0)
    sum(losses.values()).backward()
    assert losses['mask'] == losses['dice'] == 0
    likelihood = outputs.class_logits.log_softmax(dim=3)[..., NUM_CLASSES]
    expected = -2 * 0.1 * likelihood.sum() / (3 + 0.1 * (4 * NUM_QUERIES - 3))
    torch.testing.assert_close(losses['class'], expected)
    # DistributedDataParallel waits for every parameter's.
    assert all(leaf.grad is not None for leaf in leaves)


@pytest.mark.parametrize(('autocast', 'dtype'), [(True, torch.bfloat16), (False, torch.float16)])
def test_costs_and_losses_are_float32_under_autocast(monkeypatch, autocast, dtype):
    costs: list[Tensor] = []
    pair_costs = criterion.pair_costs

    def watched(*arguments) -> Tensor:
        costs.append(pair_costs(*arguments))
        return costs[-1]

    monkeypatch.setattr(criterion, 'pair_costs', watched)
    targets = targets_of(clip_of_masks([LEFT, LEFT], [None, RIGHT]), [1, 2])
    outputs = random_outputs(2)
    half = made_outputs(outputs.class_logits.to(dtype), outputs.mask_logits.to(dtype))
    whole = made_outputs(half.class_logits.float(), half.mask_logits.float())
    results = []
    for layer, enabled in ((half, autocast), (whole, False)):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            results.append(losses_of(WEIGHTS, layer, targets))
    assert [cost.dtype for cost in costs] == [torch.float32] * 2
    assert torch.equal(*costs)
    for name, loss in results[0].items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, results[1][name]), name


class HostReads(TorchDispatchMode):
    """Counts what would wait for a GPU to know a value or a size."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        is_read = torch.Tag.data_dependent_output in function.tags
        is_sized_by_values = torch.Tag.dynamic_output_shape in function.tags
        has_bools = name.startswith('index') and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if is_read or is_sized_by_values and name != 'index' or has_bools:
            self.count[name] += 1
        return function(*args, **(kwargs or {}))


def test_host_reads_are_seen():
    values = torch.tensor([0.0, 1.0])
    with HostReads() as reads:
        _ = values.nonzero(), values[values > 0], values.unique(), values[0].item()
        if values[1]:
            pass
    assert sum(reads.count.values()) >= 5


def many_layers(num_objects: int, device: str = 'cpu') -> tuple[Outputs, Targets]:
    """Build four layers that need a gradient, and boxes in one or both of two clips."""
    masks = clip_of_masks(*[[LEFT, RIGHT], [None, LEFT]] * 3)[:num_objects]
    clip_of, class_ids = torch.arange(num_objects) % 2, torch.arange(num_objects) % 3
    targets = build_targets(clip_of, class_ids, masks, 2).to(torch.device(device))
    outputs = random_outputs(2, batch_size=2, num_layers=4)
    layers = [
        made_outputs(*(logits.to(device).requires_grad_() for logits in layer[:2]))
        for layer in (*outputs.auxiliary, outputs)
    ]
    return layers[-1]._replace(auxiliary=tuple(layers[:-1])), targets


def learn(outputs: Outputs, targets: Targets) -> None:
    criterion = Criterion(WEIGHTS)
    losses, _ = criterion.chunk(outputs, targets, criterion.count_totals(targets, 9))
    sum(losses.values()).backward()


@pytest.mark.parametrize(('num_objects', 'copies'), [(0, 0), (1, 1), (5, 1)])
def test_the_criterion_copies_to_the_host_once(monkeypatch, num_objects, copies):
    """One function copies the costs of all layers, clips and objects; nothing else waits."""
    shapes = []
    to_host = criterion.to_host

    def watched(costs: Tensor):
        shapes.append(tuple(costs.shape))
        return to_host(costs)

    monkeypatch.setattr(criterion, 'to_host', watched)
    outputs, targets = many_layers(num_objects)
    with HostReads() as reads:
        learn(outputs, targets)
    assert not reads.count
    assert shapes == [(4, num_objects, NUM_QUERIES)] * copies


@pytest.mark.gpu
def test_the_criterion_waits_for_the_gpu_once():
    outputs, targets = many_layers(5, 'cuda')
    learn(outputs, targets)  # warm-up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            learn(outputs, targets)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    waits = [str(item.message) for item in caught if 'called a synchronizing' in str(item.message)]
    assert len(waits) == 1, waits
