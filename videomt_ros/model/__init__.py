"""The VidEoMT network and its checkpoints; torch and timm only."""

from videomt_ros.model.checkpoint import CheckpointError, load_model, save_model
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.model.network import Outputs, VidEoMT

__all__ = ['CheckpointError', 'Outputs', 'VidEoMT', 'VidEoMTConfig', 'load_model', 'save_model']
