"""Matching and losses over time, and under reduced precision, on hand-made clips."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from videomt_ros.model.network import Outputs
from videomt_ros.training import criterion
from videomt_ros.training.criterion import Criterion, LossWeights, Targets
from videomt_ros.training.matcher import first_visible

SIZE, NUM_QUERIES, NUM_CLASSES = 16, 4, 3
WEIGHTS = LossWeights(num_points=200)
LEFT, RIGHT = (slice(0, 16), slice(0, 6)), (slice(0, 16), slice(10, 16))


def clip_of_masks(*objects: list[tuple[slice, slice] | None]) -> Tensor:
    """(N, T, H, W): one area per frame and object, None where it is hidden."""
    masks = torch.zeros(len(objects), len(objects[0]), SIZE, SIZE, dtype=torch.bool)
    for mask, areas in zip(masks, objects, strict=True):
        for frame, area in zip(mask, areas, strict=True):
            if area is not None:
                frame[area] = True
    return masks


def targets_of(masks: Tensor, class_ids: list[int]) -> Targets:
    clip_of = torch.zeros(len(masks), dtype=torch.int64)
    return Targets(clip_of, torch.tensor(class_ids, dtype=torch.int64), masks)


def random_outputs(num_frames: int, batch_size: int = 1, num_layers: int = 1) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(num_layers):
        shape = (batch_size, num_frames, NUM_QUERIES)
        class_logits = torch.randn(*shape, NUM_CLASSES + 1, generator=generator)
        mask_logits = torch.randn(*shape, 4, 4, generator=generator)
        layers.append(Outputs(class_logits, mask_logits))
    return layers[-1]._replace(auxiliary=tuple(layers[:-1]))


def supervised(outputs: Outputs, targets: Targets) -> Tensor:
    """(T, Q) bool: which query is shown a mask in which frame, by the gradient."""
    mask_logits = outputs.mask_logits.clone().requires_grad_()
    losses = Criterion(WEIGHTS)(outputs._replace(mask_logits=mask_logits), targets)
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
    outputs = Outputs(torch.zeros(1, 3, NUM_QUERIES, NUM_CLASSES + 1), mask_logits)
    first = first_visible(targets.masks)
    assert first.tolist() == [0, 1]
    assert Criterion(WEIGHTS).match((outputs,), targets, first).tolist() == [[0, 2]]
    alone = Targets(*(part[1:] for part in targets))
    assert Criterion(WEIGHTS).match((outputs,), alone, first[1:]).tolist() == [[0]]
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
    outputs = Outputs(torch.zeros(1, 2, NUM_QUERIES, NUM_CLASSES + 1), mask_logits)
    matches = Criterion(WEIGHTS).match((outputs,), targets, first_visible(targets.masks))
    assert matches.tolist() == [[3, 2]]
    assert supervised(outputs, targets).int().tolist() == [[0, 0, 1, 1]] * 2


@pytest.mark.parametrize('seen', [[LEFT, LEFT, RIGHT], [None, RIGHT, None], [None, None, None]])
def test_an_object_that_is_never_visible_changes_nothing(monkeypatch, seen):
    points = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(torch, 'rand', lambda n, p, _, device: points[:p].repeat(n, 1, 1))
    alone = targets_of(clip_of_masks(seen), [1])
    joined = targets_of(clip_of_masks([None] * 3, seen, [None] * 3), [2, 1, 0])
    outputs = random_outputs(3, num_layers=2)
    expected = Criterion(WEIGHTS)(outputs, alone)
    for name, loss in Criterion(WEIGHTS)(outputs, joined).items():
        torch.testing.assert_close(loss, expected[name])
    if not any(seen):
        nothing = targets_of(torch.zeros(0, 3, SIZE, SIZE, dtype=torch.bool), [])
        for name, loss in Criterion(WEIGHTS)(outputs, nothing).items():
            torch.testing.assert_close(loss, expected[name])


def test_an_empty_clip_beside_others_is_taught_no_object():
    masks = clip_of_masks([LEFT, LEFT], [RIGHT, None])
    targets = Targets(torch.tensor([0, 2]), torch.tensor([1, 2]), masks)
    outputs = random_outputs(2, batch_size=3)
    class_logits = outputs.class_logits.clone().requires_grad_()
    mask_logits = outputs.mask_logits.clone().requires_grad_()
    losses = Criterion(WEIGHTS)(Outputs(class_logits, mask_logits), targets)
    sum(losses.values()).backward()
    taught = (class_logits.grad < 0).nonzero()  # the logits that are to rise
    assert (taught[taught[:, 0] == 1][:, 3] == NUM_CLASSES).all()
    rising = {tuple(row) for row in taught[taught[:, 3] < NUM_CLASSES][:, [0, 1, 3]].tolist()}
    assert rising == {(0, 0, 1), (0, 1, 1), (2, 0, 2), (2, 1, 2)}
    assert mask_logits.grad.flatten(1).any(dim=1).tolist() == [True, False, True]


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_costs_and_losses_are_float32_under_autocast(monkeypatch, autocast, dtype):
    costs: list[Tensor] = []
    pair_costs = criterion.pair_costs

    def watched(*arguments) -> Tensor:
        costs.append(pair_costs(*arguments))
        return costs[-1]

    monkeypatch.setattr(criterion, 'pair_costs', watched)
    targets = targets_of(clip_of_masks([LEFT, LEFT], [None, RIGHT]), [1, 2])
    outputs = random_outputs(2)
    half = Outputs(outputs.class_logits.to(dtype), outputs.mask_logits.to(dtype))
    whole = Outputs(half.class_logits.float(), half.mask_logits.float())
    results = []
    for layer, enabled in ((half, autocast), (whole, False)):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            results.append(Criterion(WEIGHTS)(layer, targets))
    assert [cost.dtype for cost in costs] == [torch.float32] * 2
    assert torch.equal(costs[0], costs[1])
    for name, loss in results[0].items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, results[1][name]), name


class HostReads(TorchFunctionMode):
    """Counts every call that would wait for a GPU and read from it."""

    NAMES = {
        'cpu', 'numpy', 'item', 'tolist', 'nonzero', 'unique', 'masked_select', 'equal',
        '__bool__', '__int__', '__float__', '__index__', '__array__', '__contains__',
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, '__name__', str(function))
        to_host = name == 'to' and 'cpu' in map(str, (*args[1:], *kwargs.values()))
        if name in self.NAMES or to_host:
            self.count[name] += 1
        return function(*args, **kwargs)


@pytest.mark.parametrize('num_objects', [1, 5])
def test_the_matcher_copies_to_the_host_once(num_objects):
    """Once for all layers, clips and objects; what is read after that is on the host."""
    masks = clip_of_masks(*[[LEFT, RIGHT]] * num_objects)
    targets = Targets(torch.arange(num_objects) % 2, torch.arange(num_objects) % 3, masks)
    outputs = random_outputs(2, batch_size=2, num_layers=4)
    layers = (*outputs.auxiliary, outputs)
    with HostReads() as reads:
        Criterion(WEIGHTS).match(layers, targets, first_visible(targets.masks))
    # One copy, seen as an array; and the way back, which here has the host's name too.
    assert reads.count == {'cpu': 1, 'numpy': 1, 'to': 1}


@pytest.mark.gpu
def test_the_matcher_copies_from_the_gpu_once():
    device = torch.device('cuda')
    masks = clip_of_masks(*[[LEFT, RIGHT]] * 5)
    targets = Targets(torch.arange(5) % 2, torch.arange(5) % 3, masks).to(device)
    outputs = random_outputs(2, batch_size=2, num_layers=4)
    layers = tuple(
        Outputs(layer.class_logits.to(device), layer.mask_logits.to(device))
        for layer in (*outputs.auxiliary, outputs)
    )
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    Criterion(WEIGHTS).match(layers, targets, first_visible(targets.masks))  # warm-up
    with torch.profiler.profile(activities=activities) as profile:
        Criterion(WEIGHTS).match(layers, targets, first_visible(targets.masks))
        torch.cuda.synchronize()
    copies = [event for event in profile.events() if 'DtoH' in event.name]
    assert len(copies) == 1
