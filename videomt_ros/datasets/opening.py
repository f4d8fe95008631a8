"""Opens what a user names as a source of images; the synthetic scene as a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from videomt_ros.datasets.bags.images import BagImages
from videomt_ros.datasets.bags.messages import is_bag
from videomt_ros.datasets.source import Source, SourceFrame
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.datasets.video import VideoFile, Webcam


class SyntheticSource:
    """A `Scene` played as a camera of 480 x 384 pixels."""

    is_endless = False
    topic = ''

    def __init__(self, seed: int, num_frames: int, fps: float = 10.0, stuff: bool = False) -> None:
        """Create the scene; the truth of a frame is `self.scene.frame(number)[1]`."""
        self.fps, self.num_frames = fps, num_frames
        self.scene = Scene(seed, num_frames=num_frames, stuff=stuff)
        self.notes: list[str] = []

    @property
    def description(self) -> str:
        """Description of the source for people."""
        scene = self.scene
        stuff = ' with sky, ground and walls' if scene.has_stuff else ''
        return (
            f'synthetic scene {scene.seed}{stuff}, {scene.width} x {scene.height} pixels, '
            f'{self.fps:.4g} frames a second'
        )

    def frames(self) -> Iterator[SourceFrame]:
        """Draw all frames of the scene."""
        for number, (image, _) in enumerate(self.scene.frames()):
            yield SourceFrame(round(number * 1e9 / self.fps), image)


def open_source(
    name: str, topic: str = '', seed: int = 0, num_frames: int = 300, stuff: bool = False
) -> Source:
    """Open the source that a user named.

    Args:
        name: 'synthetic', the index of a webcam, a bag (a folder, .mcap or .db3), or a video file.
        topic: image topic of a bag that has several.
        seed: seed of the synthetic scene.
        num_frames: length of the synthetic scene.
        stuff: whether the synthetic scene has sky, ground and walls.

    Raises:
        ValueError: the source cannot be read; says what was expected and what came.
        OSError: the operating system cannot read the source.
    """
    if name == 'synthetic':
        return SyntheticSource(seed, num_frames, stuff=stuff)
    if name.isdecimal():
        return Webcam(int(name))
    path = Path(name).expanduser()
    if is_bag(path):
        return BagImages(path, topic)
    if path.is_dir():
        raise ValueError(
            f'Expected a video file or a rosbag2 folder, got the folder {path}, which holds '
            'neither metadata.yaml nor .db3 nor .mcap files.'
        )
    return VideoFile(path)
