"""Live inference: images in, segments with lasting track ids out."""

from videomt_ros.inference.draw import draw
from videomt_ros.inference.settings import StreamSettings
from videomt_ros.inference.stream import VideoStream

__all__ = ['StreamSettings', 'VideoStream', 'draw']
