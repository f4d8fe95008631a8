"""What all engines without weights have in common, which answer frames with made-up outputs."""

from __future__ import annotations

import torch


class MadeEngine:
    """Base of engines that need a config, an initial state and a step to be complete."""

    engine_name = 'made'
    device = torch.device('cpu')
    dtype = torch.float32

    def digest(self) -> str:
        return type(self).__name__
