"""Compressed and 16-bit images over DDS, as cameras and image_transport publish them."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from sensor_msgs.msg import CompressedImage, Image

from tests.ros.node_process import (
    RELIABLE,
    NodeProcess,
    Peer,
    new_domain,
    pixels,
    wait_for,
)
from videomt_ros.datasets.synthetic.scene import Scene

pytestmark = pytest.mark.ros
FRAMES = 6


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    """A segmenter with the demo model, which waits for a camera, and a peer."""
    folder, domain = tmp_path_factory.mktemp('node'), new_domain()
    process = NodeProcess(folder / 'log', domain, model='demo', input_reliability='reliable')
    peer = Peer(domain)
    peer.node.destroy_publisher(peer.images)  # there are compressed images alone
    try:
        peer.wait_for_state('active')
        peer.subscribe('tracks', 'instances', 'overlay')
        yield process, peer
        assert process.is_alive(), process.log()
    finally:
        peer.close()
        process.kill()


def compressed(image: np.ndarray, format_: str, extension: str = '.jpg') -> CompressedImage:
    """A message with an RGB or grey image."""
    stored = image[..., ::-1] if image.ndim == 3 else image
    data = cv2.imencode(extension, stored)[1]
    return CompressedImage(format=format_, data=array.array('B', data.tobytes()))


def test_the_transport_follows_the_camera(live):
    process, peer = live
    scene = Scene(41, 120, 160, num_frames=FRAMES)
    images = [image for image, _ in scene.frames()]
    peer.images = peer.node.create_publisher(CompressedImage, 'image_raw/compressed', RELIABLE)
    peer.wait_until_heard()
    for image in images:
        tracks, overlay = peer.ask(
            compressed(image, 'rgb8; jpeg compressed bgr8'), 'tracks', 'overlay'
        )
    assert len(tracks.tracks) >= 2
    shown = pixels(overlay).astype(int)
    assert np.abs(shown - images[-1]).mean() < 40  # red and blue are where they were
    assert np.abs(shown[..., ::-1] - images[-1]).mean() > np.abs(shown - images[-1]).mean()

    # A PNG loses nothing: the same tracks as from raw images, which a second camera publishes.
    assert peer.reset().success
    found = [
        pixels(peer.ask(compressed(image, 'png', '.png'), 'instances')[0]) for image in images
    ]
    peer.node.destroy_publisher(peer.images)
    peer.images = peer.node.create_publisher(Image, 'image_raw', RELIABLE)
    process.wait_for_log('Listening to /image_raw, reliable.')
    process.wait_for_log('Listening to /image_raw/compressed, reliable.')
    wait_for(peer.images.get_subscription_count, 'the raw subscription')
    assert peer.reset().success
    for image, ids in zip(images, found, strict=True):
        np.testing.assert_array_equal(pixels(peer.ask(image, 'instances')[0]), ids)


def test_a_16_bit_image_is_read_between_the_limits(live):
    _, peer = live
    grey = cv2.cvtColor(next(Scene(41, 120, 160).frames())[0], cv2.COLOR_RGB2GRAY)
    thermal = (grey.astype(np.uint16) + 20_000).astype('<u2')
    assert all(r.successful for r in peer.set_parameters(grey_low=20_000, grey_high=20_255))
    # The overlay is then the image alone.
    assert all(r.successful for r in peer.set_parameters(score_threshold=1.0, drawn_images=True))
    (overlay,) = peer.ask(thermal, 'overlay', encoding='mono16')
    np.testing.assert_array_equal(pixels(overlay)[..., 1], grey)
    (refused,) = peer.set_parameters(grey_high=20_000)
    assert 'Expected grey_low below grey_high' in refused.reason
    assert all(r.successful for r in peer.set_parameters(grey_high=65_535, grey_low=0))
    (overlay,) = peer.ask(thermal, 'overlay', encoding='mono16')
    np.testing.assert_array_equal(pixels(overlay)[..., 1], thermal >> 8)
    peer.set_parameters(score_threshold=0.5, drawn_images=False)
