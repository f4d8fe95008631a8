"""Inference on video streams: images in, segments with lasting track ids out."""

from videomt_ros.inference.batch import StartedFrames, StreamFrame, push_together, start_together
from videomt_ros.inference.continuity import OutlierError
from videomt_ros.inference.draw import draw
from videomt_ros.inference.stream import VideoStream
from videomt_ros.inference.stream_settings import StreamSettings

__all__ = [
    'OutlierError',
    'StartedFrames',
    'StreamFrame',
    'StreamSettings',
    'VideoStream',
    'draw',
    'push_together',
    'start_together',
]
