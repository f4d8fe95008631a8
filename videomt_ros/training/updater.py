"""The start of a query updater that is new, in training and in trials of random weights."""

from __future__ import annotations

import torch
from torch import nn

from videomt_ros.model import VideoNetwork

UPDATER_GAIN = 0.3
"""Share of a query that a new linear updater propagates to the next frame."""

KEEP_BIAS = 8.0
"""Bias of the update gate of a new GRU, which keeps sigmoid(8) = 0.9997 of its state."""


@torch.no_grad()
def start_updater(net: VideoNetwork) -> None:
    """Initialise a new query updater so that it hardly changes the queries."""
    channels = net.config.embed_dim
    if net.config.propagation == 'fusion':
        # The gain is below 1, or the state would grow without bound: blocks add to the queries, so
        # the next state is gain * (state + change) + q. Demo networks trained from a gain of 1 had
        # a state of norm 71 after 2 frames, 1e4 after 20 and 4e8 after 60, and found 17 % of the
        # objects over 60 frames; from 0.3 the norm stays at 22, and 94 % are found.
        assert isinstance(net.query_updater, nn.Linear)
        net.query_updater.weight.copy_(UPDATER_GAIN * torch.eye(channels))
        net.query_updater.bias.zero_()
    elif net.config.propagation == 'gru':
        # h <- z h + (1 - z) tanh(o), with z near 1: the model starts without propagation and
        # learns it. Unlike fusion, a GRU does not add the learned queries q in each frame, but the
        # query blocks expect queries like those of the image model: with z = 0.73 and tanh(0.3 o),
        # nothing of q was left after a few frames. After 1,500 steps on clips of 15 frames with
        # walls, live IDF1 was 36.4 for that z, 46.0 for z = 0.993 and 55.7 for this z, one run
        # each. The reset gate keeps its random weights.
        assert isinstance(net.query_updater, nn.GRUCell)
        cell = net.query_updater  # rows: reset gate, update gate, candidate
        for weight in (cell.weight_ih, cell.weight_hh):
            weight[channels:] = 0
        cell.weight_ih[2 * channels :] = torch.eye(channels)
        cell.bias_ih[channels:] = 0
        cell.bias_hh[channels:] = 0
        cell.bias_ih[channels : 2 * channels] = KEEP_BIAS
