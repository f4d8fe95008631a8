"""The network of a configuration."""

from __future__ import annotations

from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.network import VideoNetwork
from videomt_ros.model.pmt import PMT
from videomt_ros.model.videomt import VidEoMT

_NETWORKS: dict[str, type[VideoNetwork]] = {'videomt': VidEoMT, 'pmt': PMT}
"""Network of each `NetworkConfig.architecture`."""


def build_network(config: NetworkConfig) -> VideoNetwork:
    """Build a network with random weights, in training mode."""
    return _NETWORKS[config.architecture](config)
