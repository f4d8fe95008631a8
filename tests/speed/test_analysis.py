"""Work, time and memory of the parts of a step. No timing is asserted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from videomt_ros.model import NetworkConfig, build_network, network
from videomt_ros.model.config import VIT_SIZES
from videomt_ros.speed.analysis import analyse
from videomt_ros.speed.memory import peak_bytes, weight_bytes
from videomt_ros.speed.parts import (
    ENCODER,
    HEADS,
    LATERAL,
    PARTS,
    PRODUCT,
    QUERIES,
    UPSCALE,
    watch_parts,
)
from videomt_ros.speed.roofline import measure_peaks
from videomt_ros.speed.work import Work, count_work, total

CHANNELS, GRID, QUERY_BLOCKS, CLASSES, NUM_QUERIES = 8, (2, 3), 1, 4, 5
TINY = NetworkConfig(
    num_classes=CLASSES,
    embed_dim=CHANNELS,
    depth=3,
    num_heads=2,
    num_queries=NUM_QUERIES,
    num_query_blocks=QUERY_BLOCKS,
    table_size=48,
)


LVMT = replace(TINY, architecture='pmt', num_query_blocks=2, propagation='gru')
"""Three blocks encode and are tapped, two decode."""


def block_flops(tokens: int, mlp_ratio: int = 4) -> int:
    """Four projections, an MLP of a multiple of the width, and two products of attention."""
    return 2 * tokens * CHANNELS**2 * (4 + 2 * mlp_ratio) + 2 * 2 * tokens**2 * CHANNELS


@pytest.mark.parametrize('config', [TINY, LVMT])
@pytest.mark.parametrize('batch_size', [1, 3])
def test_arithmetic_is_that_on_paper(config, batch_size):
    patches = GRID[0] * GRID[1]
    tokens = patches + 5  # a class token and four registers
    cells = 16 * patches  # of the mask grid
    upscale = sum(
        # Four results of each cell, each a product of C x C; then 3 x 3 weights of each channel.
        2 * 4 * n * CHANNELS**2 + 2 * 9 * 4 * n * CHANNELS
        for n in (patches, 4 * patches)
    )
    heads = 2 * NUM_QUERIES * CHANNELS * (3 * CHANNELS + (CLASSES + 1))
    linear, recurrent = (2 * NUM_QUERIES * layers * CHANNELS**2 for layers in (1, 6))
    blocks = (
        {
            ENCODER: 2 * block_flops(tokens),
            LATERAL: 0,
            QUERIES: block_flops(tokens + NUM_QUERIES),
        }
        if config is TINY
        else {
            ENCODER: 3 * block_flops(tokens),
            LATERAL: 3 * 2 * tokens * CHANNELS**2,  # twice between the width and half of it
            QUERIES: 2 * block_flops(tokens + NUM_QUERIES, mlp_ratio=1),
        }
    )
    heads += linear if config is TINY else recurrent
    expected = {
        **blocks,
        UPSCALE: upscale,
        PRODUCT: 2 * NUM_QUERIES * CHANNELS * cells,
        HEADS: heads + 2 * patches * 3 * 16**2 * CHANNELS,
    }
    work = count_work(config, (32, 48), batch_size, torch.float32)
    assert {part: work[part].flops for part in PARTS} == {
        part: batch_size * flops for part, flops in expected.items()
    }


def test_bytes_are_those_of_operands_and_results():
    product = count_work(TINY, (32, 48), 1, torch.float32)[PRODUCT]
    cells = 16 * GRID[0] * GRID[1]
    operands = NUM_QUERIES * CHANNELS + CHANNELS * cells
    assert product.num_bytes == 4 * (operands + NUM_QUERIES * cells)
    with torch.inference_mode():
        half = count_work(TINY, (32, 48), 1, torch.bfloat16)[PRODUCT]
    assert half.num_bytes * 2 == product.num_bytes and half.flops == product.flops


@pytest.mark.parametrize(
    ('size', 'query_blocks', 'gigaflops'),
    [('small', 3, 135.7), ('base', 3, 431.3), ('large', 4, 1336.3)],
)
def test_the_published_networks_need_what_is_documented(size, query_blocks, gigaflops):
    config = NetworkConfig(num_classes=40, num_query_blocks=query_blocks, **VIT_SIZES[size])
    work = count_work(config, (640, 640), 1, torch.bfloat16)
    assert round(total(work).flops / 1e9, 1) == gigaflops


@pytest.mark.parametrize(
    ('config', 'gigaflops', 'parameters'),
    [
        (NetworkConfig(num_classes=25, family='dinov3'), 100, 24),
        (
            NetworkConfig(
                num_classes=25, architecture='pmt', family='dinov3', num_query_blocks=6,
                propagation='gru',
            ),
            111, 30,
        ),
    ],
)  # fmt: skip
def test_vit_s_on_ovis_needs_what_is_published(config, gigaflops, parameters):
    """The paper of LVMT counts multiply-adds, and not those of attention in the decoder."""
    size = (544, 992)  # of videos with 1920 x 1080
    flops = total(count_work(config, size, 1, torch.float32)).flops
    if config.architecture == 'pmt':
        tokens = 34 * 62 + 5 + config.num_queries
        flops -= config.num_query_blocks * 2 * 2 * tokens**2 * config.embed_dim
    assert flops / 2e9 == pytest.approx(gigaflops, rel=0.02)
    with torch.device('meta'):
        net = build_network(config)
    assert sum(each.numel() for each in net.parameters()) / 1e6 == pytest.approx(
        parameters, rel=0.03
    )


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    assert Work(2_000_000_000, 10).floor_ms(1.0, 1.0) == 2.0
    assert Work(2, 3_000_000).floor_ms(1.0, 1.0) == 3.0
    assert Work(8, 2).intensity == 4.0
    assert Work(0, 0).intensity == 0.0


def test_parts_follow_each_other():
    net = build_network(TINY).eval()
    seen: list[str] = []
    frames = torch.randn(1, 3, 32, 48)
    with watch_parts(net, seen.append):
        net.step(frames, net.initial_state())
    without_rest = [part for part in seen if part != PRODUCT]
    assert without_rest[:4] == [HEADS, ENCODER, ENCODER, QUERIES]
    assert sorted(without_rest[4:]) == sorted([UPSCALE, HEADS, HEADS, HEADS])
    count = len(seen)
    net.step(frames, net.initial_state())
    assert seen[-1] == PRODUCT and len(seen) == count


def test_the_lateral_path_is_a_part_of_its_own():
    net = build_network(LVMT).eval()
    seen: list[str] = []
    frames = torch.randn(1, 3, 32, 48)
    with torch.inference_mode(), watch_parts(net, seen.append):
        net.step(frames, net.initial_state())
    order = [part for part in seen if part != PRODUCT]
    assert order[:7] == [HEADS, *[ENCODER] * 3, LATERAL, QUERIES, QUERIES]


def test_peaks_grow_with_the_mask_grid_and_know_the_outputs():
    net = build_network(TINY).eval()
    small, large = (peak_bytes(net, torch.randn(1, 3, side, side)) for side in (32, 128))
    assert small.keys() == set(PARTS)
    assert all(large[part] > small[part] for part in (ENCODER, QUERIES, PRODUCT))
    assert large[PRODUCT] >= 4 * NUM_QUERIES * 32 * 32  # the masks


def test_the_weights_are_counted():
    net = build_network(TINY)
    assert weight_bytes(net.half()) == 2 * sum(
        tensor.numel() for tensor in (*net.parameters(), *net.buffers())
    )


@pytest.mark.parametrize('config', [TINY, LVMT])
@pytest.mark.parametrize('by_strips', [True, False])
def test_every_part_has_a_row(by_strips, config, monkeypatch):
    """Upscaling and mask product share one where they are computed strip by strip."""
    monkeypatch.setattr(network, 'strips_are_faster', lambda tokens: by_strips)
    net = build_network(config).eval()
    analysis = analyse(net, torch.randn(2, 3, 32, 48), repeats=1)
    masks = [f'{UPSCALE}, {PRODUCT}'] if by_strips else [UPSCALE, PRODUCT]
    lateral = [LATERAL] if config is LVMT else []
    parts = [ENCODER, *lateral, QUERIES, *masks, HEADS]
    cells = analysis.rows()
    assert [row[0] for row in cells[1:]] == [*parts, 'step']
    assert len({len(row) for row in cells}) == 1
    assert cells[-1][1] == f'{total(analysis.work).flops / 1e9:.1f}'
    found = analysis.as_json()
    assert list(found['parts']) == parts
    encoder_blocks = 3 if config is LVMT else 2
    assert found['parts'][ENCODER]['flops'] == 2 * encoder_blocks * block_flops(11)
    assert all(
        part['median_ms'] > 0 and part['peak_bytes'] > 0 for part in found['parts'].values()
    )
    assert found['peaks']['tflops'] > 0


@pytest.mark.gpu
def test_a_gpu_has_peaks_and_parts():
    device = torch.device('cuda')
    peaks = measure_peaks(device, torch.float16)
    assert peaks.tflops > 1 and peaks.gigabytes_per_s > 10
    net = build_network(TINY).eval().to(device)
    assert min(peak_bytes(net, torch.randn(1, 3, 32, 48, device=device)).values()) > 0
