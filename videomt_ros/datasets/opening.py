"""Opens what a user names as a source of images; the synthetic scene as a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from videomt_ros.datasets.bags.files import is_bag
from videomt_ros.datasets.bags.images import BagImages
from videomt_ros.datasets.dataset import list_names
from videomt_ros.datasets.image_files import ImageFiles, files_of, images_in, is_image, is_pattern
from videomt_ros.datasets.images import GreyRange
from videomt_ros.datasets.live_video import Stream, Webcam, is_pipeline, is_url
from videomt_ros.datasets.source import SOURCES, Source, SourceFrame
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.datasets.video import VideoError, VideoFile


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
    name: str,
    topic: str = '',
    seed: int = 0,
    num_frames: int = 300,
    stuff: bool = False,
    grey_range: GreyRange | None = None,
    keep_depth: bool = False,
) -> Source:
    """Open the source that a user named.

    Args:
        name: see `SOURCES`; where OpenCV has GStreamer, also a pipeline that ends with appsink.
        topic: image topic of a bag that has several.
        seed: seed of the synthetic scene.
        num_frames: length of the synthetic scene.
        stuff: whether the synthetic scene has sky, ground and walls.
        grey_range: values of 16-bit images that become black and white; see
            `images.to_eight_bits`.
        keep_depth: give 16-bit images as they are, for a node that reduces them by itself.

    Raises:
        ValueError: the source cannot be read; says what was expected and what came.
        OSError: the operating system cannot read the source.
    """
    if name == 'synthetic':
        return SyntheticSource(seed, num_frames, stuff=stuff)
    if not name.strip():
        raise VideoError(f'Expected {SOURCES}, got an empty name.')
    # A folder may be named by a number; it is meant where there is no such camera.
    if name.isdecimal() and (Path('/dev', f'video{name}').exists() or not Path(name).exists()):
        return Webcam(int(name))
    if is_url(name) and not name.lower().startswith('file://'):
        return Stream(name)
    path = Path(unquote(name[len('file://') :]) if is_url(name) else name).expanduser()
    if not path.exists():
        return _open_absent(name, path, topic, grey_range, keep_depth)
    if path.is_char_device():
        return Webcam(path)
    if is_bag(path):
        return BagImages(path, topic, grey_range, keep_depth)
    if path.is_dir():
        return ImageFiles(images_in(path), f'folder {path}', grey_range, keep_depth)
    if is_image(path):
        return ImageFiles([path], str(path), grey_range, keep_depth)
    return VideoFile(path)


def _open_absent(
    name: str, path: Path, topic: str, grey_range: GreyRange | None, keep_depth: bool
) -> Source:
    """Open what is no path of a file, such as a pattern.

    Raises:
        VideoError: it is nothing that can be opened.
    """
    if is_pipeline(name):
        return Stream(name)
    if path.parent == Path('/dev'):
        return Webcam(path)
    if not is_pattern(str(path)):
        raise VideoError(f'Expected {SOURCES}, but there is no {path}.')
    files = files_of(str(path))
    if images := [file for file in files if is_image(file)]:
        return ImageFiles(images, str(path), grey_range, keep_depth)
    if len(files) == 1:
        return open_source(str(files[0]), topic, grey_range=grey_range, keep_depth=keep_depth)
    found = f'the {len(files)} files {list_names([str(file) for file in files])}'
    raise VideoError(
        f'Expected {path} to stand for images or for one other source, but it stands for '
        f'{found if files else "no file"}.'
    )
