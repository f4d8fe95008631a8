"""Helpers for the tests of the losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from videomt_ros.model.network import Outputs
from videomt_ros.training.criterion import Criterion, Targets
from videomt_ros.training.run_settings import LossWeights


def losses_of(weights: LossWeights, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
    """Compute the losses of a step whose clips are not split."""
    criterion = Criterion(weights)
    totals = criterion.count_totals(targets, outputs.class_logits.shape[2])
    return criterion.chunk(outputs, targets, totals)[0]


def fix_points(monkeypatch: pytest.MonkeyPatch, points: Tensor) -> None:
    """Replace random points by the first of these points, (P, 2), for every mask."""

    def rand(count: int, num_points: int, two: int, device: object = None) -> Tensor:
        assert two == 2 and num_points <= len(points)
        return points[:num_points].repeat(count, 1, 1)

    monkeypatch.setattr(torch, 'rand', rand)


def random_points(count: int, seed: int) -> Tensor:
    """Draw points (count, 2) in 0..1."""
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
