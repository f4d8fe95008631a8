"""Quality of a model on synthetic scenes, as a live stream sees them: causal, with track ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from videomt_ros.datasets.synthetic import Scene
from videomt_ros.evaluation.tracking import TrackQuality, TrackScores
from videomt_ros.inference.stream import VideoStream
from videomt_ros.model import VidEoMT


def measure_scenes(
    net: VidEoMT,
    seeds: Iterable[int],
    num_frames: int = 60,
    image_size: tuple[int, int] = (384, 480),
    frame_rate: float = 10.0,
    **settings: Any,
) -> TrackScores:
    """Run a stream over whole scenes, one after the other, and compare with their truth.

    Args:
        net: trained on the classes of `videomt_ros.datasets.synthetic`.
        seeds: of the scenes; those below FIRST_TRAINING_SEED (training.clips) are never
            trained on.
        num_frames: length of each scene.
        image_size: (height, width) of the frames in pixels.
        frame_rate: frames per second by their stamps; counts for gaps in tracks.
        settings: of the stream, fields of StreamSettings.

    Returns:
        Scores over all frames of all scenes.
    """
    quality = TrackQuality()
    stream = VideoStream(net, **settings)
    for seed in seeds:
        scene = Scene(seed, *image_size, num_frames=num_frames)
        stream.reset()
        quality.start_video()
        for t, (image, true_ids) in enumerate(scene.frames()):
            segments = stream.push(image, round(t * 1e9 / frame_rate))
            classes = {segment.track_id: segment.class_id for segment in segments.segments}
            quality.update(true_ids, segments.ids, scene.class_of, classes)
    return quality.result()
