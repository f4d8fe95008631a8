"""Masks computed strip by strip, against the layers one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from videomt_ros.model import cpu_masks
from videomt_ros.model.cpu_masks import masks_by_strips
from videomt_ros.model.network import UpscaleBlock


@pytest.mark.parametrize('num_blocks', [1, 2, 3])
@pytest.mark.parametrize('min_rows', [1, 2, 100])
@pytest.mark.parametrize('grid', [(1, 1), (1, 4), (5, 3)])
def test_strips_are_parts_of_the_whole(num_blocks, min_rows, grid, monkeypatch):
    monkeypatch.setattr(cpu_masks, 'STRIP', 0)
    monkeypatch.setattr(cpu_masks, 'MIN_ROWS', min_rows)
    torch.manual_seed(0)
    upscale = nn.Sequential(*(UpscaleBlock(8) for _ in range(num_blocks))).double()
    queries = torch.randn(2, 5, 8, dtype=torch.float64)
    tokens = torch.randn(2, 3 + grid[0] * grid[1], 8, dtype=torch.float64)
    with torch.no_grad():
        for parameter in upscale.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        features = upscale(tokens[:, 3:].transpose(1, 2).unflatten(2, grid))
        expected = torch.einsum('bqc,bchw->bqhw', queries, features)
        masks = masks_by_strips(queries, tokens[:, 3:], grid, upscale)
    torch.testing.assert_close(masks, expected)
