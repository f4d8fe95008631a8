"""Twenty image messages that no camera should send, each wrong in one way."""

from __future__ import annotations

import array

from sensor_msgs.msg import Image

_LARGEST = 2**32 - 1


def _image(size: int = 8 * 6 * 3, **fields: object) -> Image:
    """An 8 x 6 image of rgb8, but for the fields given and the bytes of its data."""
    msg = Image(width=8, height=6, step=24, encoding='rgb8', data=array.array('B', bytes(size)))
    for name, value in fields.items():
        setattr(msg, name, value)
    return msg


def malformed_images() -> dict[str, Image]:
    """The messages by what is wrong with them; each is unusable with and without cv_bridge."""
    return {
        'no columns': _image(width=0),
        'no rows': _image(height=0),
        'no pixels, no data': _image(0, width=0, height=0, step=0),
        'no data': _image(0),
        'data one byte short': _image(143),
        'data one row short': _image(120),
        'data of a mono8 image': _image(48),
        'step 0': _image(step=0),
        'step shorter than a row': _image(step=23),
        'step in pixels': _image(step=8),
        'step beyond the data': _image(step=32),
        'largest step': _image(step=_LARGEST),
        'largest height': _image(height=_LARGEST),
        'largest width': _image(width=_LARGEST),
        'largest of all': _image(width=_LARGEST, height=_LARGEST, step=_LARGEST),
        'four channels claimed': _image(encoding='rgba8'),
        'no encoding': _image(encoding=''),
        'unknown encoding': _image(encoding='no_such_encoding'),
        'encoding in capitals': _image(encoding='RGB8'),
        'depth in metres': _image(6 * 8 * 4, step=32, encoding='32FC1'),
    }
