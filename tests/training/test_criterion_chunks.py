"""Clips in chunks: the same losses and gradients, in the memory of one chunk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.made_engine import made_outputs
from tests.training.losses import fix_points, losses_of, random_points
from videomt_ros.model import VidEoMT
from videomt_ros.model.network import Outputs
from videomt_ros.training.criterion import Criterion, Targets, build_targets, chunk_losses
from videomt_ros.training.matcher import assign
from videomt_ros.training.run_settings import LossWeights

BATCH, FRAMES, SIZE = 2, 7, 32
WEIGHTS = LossWeights(num_points=60, expected_from='first_sight')
CRITERION = Criterion(WEIGHTS)


@pytest.fixture
def fixed_points(monkeypatch) -> None:
    """Compare all masks on the same points, whatever their number."""
    fix_points(monkeypatch, random_points(180, seed=0))


def moving_boxes(num_frames: int = FRAMES) -> Targets:
    """Draw five objects of two clips: two are first visible later, one has a gap, one never is."""
    masks = torch.zeros(5, num_frames, SIZE, SIZE, dtype=torch.bool)
    for t in range(num_frames):
        masks[0, t, 4 + t : 12 + t, 4:14] = True
        masks[1, t, 18:30, 2 + t : 12 + t] = t >= 4
        masks[2, t, 8:20, 20 - t : 30 - t] = t in (0, 1, 5, 6)
        masks[3, t, 2:8, 2:28] = t >= 3
    clip_of = torch.tensor([0, 0, 1, 1, 1])
    return build_targets(clip_of, torch.tensor([0, 1, 2, 0, 1]), masks, BATCH)


def network(config, propagation: str, **changes) -> VidEoMT:
    torch.manual_seed(0)
    net = VidEoMT(replace(config, propagation=propagation, **changes)).train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def clip_of(num_frames: int = FRAMES, size: int = SIZE) -> Tensor:
    shape = (BATCH, num_frames, 3, size, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def learn(
    net: VidEoMT, frames: Tensor, targets: Targets, chunk_frames: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Sum gradients by parameter and losses by name over all chunks."""
    net.zero_grad()
    sums = dict.fromkeys(('class', 'mask', 'dice'), 0.0)
    for losses in chunk_losses(
        lambda chunk, state: net(chunk, None, state),
        net.cut_gradient,
        CRITERION,
        net.initial_state(BATCH),
        frames.split(chunk_frames, dim=1),
        targets,
        CRITERION.count_totals(targets, net.config.num_queries),
    ):
        torch.stack(list(losses.values())).sum().backward()
        sums = {name: value + losses[name].item() for name, value in sums.items()}
    grads = {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
    return grads, sums


@pytest.mark.parametrize(('chunk_frames', 'num_queries'), [(1, 6), (3, 6), (3, 1), (9, 6)])
def test_chunks_of_frames_on_their_own_teach_what_the_clip_does(
    tiny_config, fixed_points, chunk_frames, num_queries
):
    """With one query, objects that appear later find no free query in any chunk."""
    net = network(tiny_config, 'none', num_queries=num_queries)
    targets = moving_boxes()
    whole = losses_of(WEIGHTS, net(clip_of()), targets)
    torch.stack(list(whole.values())).sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    grads, losses = learn(net, clip_of(), targets, chunk_frames)
    for name, loss in whole.items():
        assert losses[name] == pytest.approx(loss.item(), rel=1e-4)
    assert grads.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(grads[name], gradient, atol=1e-4 * scale, rtol=1e-3)


@pytest.mark.parametrize('propagation', ['query', 'fusion', 'gru'])
def test_the_state_crosses_a_border_and_its_gradient_does_not(
    tiny_config, fixed_points, propagation
):
    net = network(tiny_config, propagation)
    whole, whole_losses = learn(net, clip_of(), moving_boxes(), chunk_frames=FRAMES)
    parts, part_losses = learn(net, clip_of(), moving_boxes(), chunk_frames=3)
    for name, loss in whole_losses.items():
        assert part_losses[name] == pytest.approx(loss, rel=1e-4)
    assert not torch.allclose(whole['q.weight'], parts['q.weight'], rtol=1e-2)

    # By hand: each chunk a clip of its own that starts from the values of the state.
    state, entering = net.initial_state(BATCH), []
    with torch.no_grad():
        for start in (0, 3, 6):
            entering.append(state)
            _, state = net(clip_of()[:, start : start + 3], None, state)
    net.zero_grad()
    query_of = None
    totals = CRITERION.count_totals(moving_boxes(), net.config.num_queries)
    for start, values in zip((0, 3, 6), entering, strict=True):
        state = net.initial_state(BATCH) if start == 0 else values
        outputs, _ = net(clip_of()[:, start : start + 3], None, state)
        losses, query_of = CRITERION.chunk(outputs, moving_boxes(), totals, start, query_of)
        sum(losses.values()).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parts[name], parameter.grad, msg=lambda m, n=name: f'{n}: {m}')


@pytest.mark.parametrize('propagation', ['none', 'query', 'fusion', 'gru'])
def test_the_network_on_parts_of_a_clip_equals_the_whole(tiny_config, propagation):
    net = network(tiny_config, propagation).eval()
    with torch.inference_mode():
        whole, state = net(clip_of()), net.initial_state(BATCH)
        for start, end in ((0, 3), (3, 4), (4, 7)):
            part, state = net(clip_of()[:, start:end], None, state)
            for ours, all_frames in zip(part[:2], whole[:2], strict=True):
                torch.testing.assert_close(ours, all_frames[:, start:end], atol=1e-4, rtol=1e-4)


def test_a_part_of_a_clip_names_a_wrong_state(tiny_config):
    net = network(tiny_config, 'fusion')
    with pytest.raises(ValueError, match=r'state of shape \(2, 6, 32\), got \(1, 6, 32\)'):
        net(clip_of(), None, net.initial_state(1))


def said(num_frames: int, at: dict[tuple[int, int], Tensor]) -> Outputs:
    """Build outputs of a clip with three queries and masks at some (frame, query)."""
    mask_logits = torch.full((1, num_frames, 3, SIZE, SIZE), -9.0)
    for (t, query), mask in at.items():
        mask_logits[0, t, query][mask] = 9.0
    return made_outputs(torch.zeros(1, num_frames, 3, 4), mask_logits)


def test_an_object_keeps_its_query_in_later_chunks():
    """Object 0 is seen in frame 0 and hidden from 1 to 3; object 1 comes in frame 2."""
    masks = torch.zeros(2, 5, SIZE, SIZE, dtype=torch.bool)
    masks[0, [0, 4], 4:12, 4:12] = True
    masks[1, 2:, 20:30, 20:30] = True
    targets = build_targets(torch.tensor([0, 0]), torch.tensor([0, 1]), masks, 1)
    totals = CRITERION.count_totals(targets, num_queries=3)
    one, other = masks[0, 0], masks[1, 2]
    # In frame 2 query 1 would fit object 1 best, but object 0 holds it, though it is hidden.
    _, query_of = CRITERION.chunk(said(2, {(0, 1): one}), targets, totals)
    assert query_of.tolist() == [[1, -1]]
    outputs = said(2, {(0, 1): other, (1, 2): other})
    _, query_of = CRITERION.chunk(outputs, targets, totals, 2, query_of)
    assert query_of[0, 0] == 1 and query_of[0, 1] in (0, 2)
    taken = query_of.clone()
    # In frame 4 both are shown by others, which changes nothing.
    outputs = said(1, {(0, 0): one, (0, 2): one, (0, 1): other})
    _, query_of = CRITERION.chunk(outputs, targets, totals, 4, query_of)
    assert torch.equal(query_of, taken)


def test_chunks_are_divided_by_the_totals_of_the_step(tiny_config, fixed_points):
    net, targets = network(tiny_config, 'none', num_queries=6), moving_boxes()
    own = CRITERION.count_totals(targets, 6)
    sums = []
    for totals in (own, 4 * own):
        losses = chunk_losses(
            lambda chunk, state: net(chunk, None, state),
            net.cut_gradient,
            CRITERION,
            net.initial_state(BATCH),
            clip_of().split(3, dim=1),
            targets,
            totals,
        )
        with torch.no_grad():
            sums.append(sum(torch.stack(list(part.values())) for part in losses))
    torch.testing.assert_close(4 * sums[1], sums[0])


@pytest.mark.parametrize('seed', range(3))
def test_pairs_are_counted_before_they_are_matched(seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(9, 4, 2, 2, generator=generator) < 0.12
    clips = torch.randint(3, (9,), generator=generator)
    targets = build_targets(clips, torch.zeros(9, dtype=torch.int64), masks, 3)
    costs = torch.rand(9, 2, generator=generator).numpy()
    query_of = assign(costs, clips.numpy(), targets.first.numpy(), num_frames=4)
    expected = sum(4 - int(targets.first[n]) for n in range(9) if query_of[n] >= 0)
    assert CRITERION.count_totals(targets, num_queries=2).tolist() == [expected, 3 * 4 * 2]


@pytest.mark.parametrize(
    ('expected_from', 'chunk_frames', 'taught'),
    [
        ('clip', None, [0, 1, 2, 3, 4]),
        ('clip', 2, [2, 3, 4]),  # chunks of frames 0 1, 2 3 and 4
        ('clip', 3, [3, 4]),
        ('first_sight', None, [3, 4]),
        ('first_sight', 2, [3, 4]),
    ],
)
def test_frames_in_which_an_object_is_expected(expected_from, chunk_frames, taught):
    """The object is first visible in frame 3 of 5."""
    masks = torch.zeros(1, 5, SIZE, SIZE, dtype=torch.bool)
    masks[0, 3, 4:12, 4:12] = True
    targets = build_targets(torch.tensor([0]), torch.tensor([1]), masks, 1)
    criterion = Criterion(LossWeights(num_points=60, expected_from=expected_from))
    totals = criterion.count_totals(targets, 3, chunk_frames)
    assert totals.tolist() == [len(taught), 5 * 3]
    frames, query_of = [], None
    for start in range(0, 5, chunk_frames or 5):
        outputs = said(min(chunk_frames or 5, 5 - start), {})
        logits = outputs.class_logits.requires_grad_()
        losses, query_of = criterion.chunk(outputs, targets, totals, start, query_of)
        losses['class'].backward()
        rising = logits.grad[0, :, :, 1].amin(dim=1) < 0  # of the object's class, by frame
        frames += (start + rising.nonzero()[:, 0]).tolist()
    assert frames == taught
