"""Checks the outputs of a network's first frame: those of weights that do nothing are alike.

Weights that are not trained, of another model or differences may fit a network in every key and
size. Its outputs are then the same for all queries, or at all pixels of an image that shows
something, or not finite, and the lack of tracks does not say why.

Letters: Q queries, K classes, h w mask grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from videomt_ros.engines.engine import Engine
from videomt_ros.errors import OUTPUT_FAULT
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model.network import Outputs

SAME = 1e-4
"""Largest difference of logits, as a share of 1 plus their largest value, that counts as none."""

_checked: WeakValueDictionary[int, Engine] = WeakValueDictionary()
"""Networks whose outputs were judged, by their id, since not all engines have a hash."""


def measure_outputs(
    net: Engine, outputs: Outputs, frame: Tensor, geometry: Geometry
) -> Tensor | None:
    """Measure the outputs of a frame on their device, if none of the network was checked before.

    Args:
        net: network.
        outputs: its outputs, with class_logits (1, Q, K + 1) and mask_logits (1, Q, h, w).
        frame: its input, (1, 3, Hp, Wp).
        geometry: sizes of the frame.

    Returns:
        Difference of the class logits between queries, that of the mask logits between cells, both
        as shares, and that of the pixels, (3,) float32; None if there is nothing to check.
    """
    masks = outputs.mask_logits[0]
    if id(net) in _checked or len(masks) < 2:
        return None
    rows, columns = geometry.grid_inside((masks.shape[1], masks.shape[2]))
    height, width = geometry.resized_size
    classes, masks = outputs.class_logits[0].float(), masks[:, :rows, :columns].float().flatten(1)
    pixels = frame[0, :, :height, :width].float().flatten(1)
    return torch.stack(
        [
            _spread(classes, 0) / (1 + classes.abs().amax()),
            _spread(masks, 1) / (1 + masks.abs().amax()),
            _spread(pixels, 1),
        ]
    )


def find_fault(net: Engine, measured: Sequence[float]) -> str:
    """Judge what was measured, once for each network.

    An image of one colour, such as the blank one that the node loads with, shows nothing by which
    masks could differ; then the next image is judged as well.

    Returns:
        What is wrong with the outputs and what to do, in one line; empty if nothing is.
    """
    if id(net) in _checked:
        return ''
    classes, masks, pixels = (float(value) for value in measured)
    of_network = f'{OUTPUT_FAULT} {net.config.name}'.rstrip()
    fault = ''
    if not math.isfinite(classes + masks):
        fault = (
            f'{of_network} are not finite. Use precision fp32; if that does not help, its weights '
            'are damaged.'
        )
    elif classes <= SAME or (masks <= SAME and pixels > SAME):
        where = 'for all queries' if classes <= SAME else 'at all pixels'
        fault = (
            f'{of_network} are the same {where}, whatever the image shows: its weights are not '
            'trained, of another model, or damaged.'
        )
    if fault or pixels > SAME:
        _checked[id(net)] = net
    return fault


def _spread(values: Tensor, axis: int) -> Tensor:
    """Compute the largest difference of values along an axis."""
    return (values.amax(axis) - values.amin(axis)).amax()
