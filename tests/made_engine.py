"""What all engines without weights have in common, which answer frames with made-up outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from videomt_ros.model import Outputs


def made_outputs(class_logits: Tensor, mask_logits: Tensor) -> Outputs:
    """Outputs whose embeddings, (B, [T,] Q, 1), are zeros, which are like no other."""
    return Outputs(class_logits, mask_logits, torch.zeros(*class_logits.shape[:-1], 1))


class MadeEngine:
    """Base of engines that need a config, an initial state and a step to be complete."""

    engine_name = 'made'
    device = torch.device('cpu')
    dtype = torch.float32

    def digest(self) -> str:
        return type(self).__name__
