"""Which depth image an image gets, and the intrinsics that go with it."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from tests.ros.node_process import new_domain, wait_for
from videomt_ros.inference.depth import Intrinsics
from videomt_ros.ros import depth as depth_module
from videomt_ros.ros.conversions import stamp_to_msg
from videomt_ros.ros.depth import KEPT, DepthImages, intrinsics_from_msg
from videomt_ros.ros.health import CameraHealth

SIZE = (4, 6)
K = [500.0, 0.0, 2.5, 0.0, 510.0, 1.5, 0.0, 0.0, 1.0]
P = [400.0, 0.0, 2.0, -30.0, 0.0, 410.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
INFO = CameraInfo(width=6, height=4, k=K, p=P)


def header(stamp_ns: int, frame_id: str = 'camera') -> Header:
    return Header(stamp=stamp_to_msg(stamp_ns), frame_id=frame_id)


def depth_image(millimetres: int, stamp_ns: int, frame_id: str = 'camera', **fields) -> Image:
    data = np.full(SIZE, millimetres, '<u2').tobytes()
    settings = {'height': 4, 'width': 6, 'step': 12, 'encoding': '16UC1', 'data': data}
    return Image(header=header(stamp_ns, frame_id), **{**settings, **fields})


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    node = rclpy.create_node('segmenter', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def health():
    return CameraHealth()


@pytest.fixture
def images(node, health, monkeypatch):
    monkeypatch.setattr(depth_module, 'GRACE_S', 0.0)
    images = DepthImages(node, 'front/depth/image_raw', '/front/image_raw', health)
    images.open()
    images.open()
    assert node.count_subscribers('/front/depth/image_raw') == 1
    return images


def metres(view) -> float | None:
    return None if view is None else round(float(view.depth[0, 0]), 3)


def test_the_nearest_stamp_within_the_tolerance_counts(images, health):
    second = 10**9
    assert images.find(header(second), SIZE, INFO, 0.02) is None
    # Out of order, and one stamp twice: the newer one counts.
    for millimetres, stamp in ((1000, 1.0), (3000, 1.066), (2000, 1.033), (2500, 1.033)):
        images._keep(depth_image(millimetres, round(stamp * second)))
    for stamp, expected in ((1.0, 1.0), (1.01, 1.0), (1.03, 2.5), (1.06, 3.0), (1.086, 3.0)):
        view = images.find(header(round(stamp * second)), SIZE, INFO, 0.02)
        assert metres(view) == expected
        assert view.intrinsics == Intrinsics(500.0, 510.0, 2.5, 1.5)
        images.follow_publishers('/front/camera_info')
        assert images.troubles == []
    assert images.find(header(round(1.09 * second)), SIZE, INFO, 0.02) is None
    images.follow_publishers('/front/camera_info')
    (trouble,) = images.troubles
    assert 'is 0.024 s from that of the image, above depth_tolerance_s = 0.02' in trouble
    assert metres(images.find(header(round(1.09 * second)), SIZE, INFO, 0.03)) == 3.0
    assert metres(images.find(header(second), SIZE, INFO, 0.0)) == 1.0
    assert health.depth == {
        'found': 7, 'no_depth': 1, 'stamps': 1, 'no_camera_info': 0, 'unusable': 0
    }  # fmt: skip
    images.close()
    assert images.troubles == []
    assert images.find(header(second), SIZE, INFO, 0.02) is None
    assert health.depth['no_depth'] == 1  # nothing is looked for


def test_old_depth_images_are_forgotten(images):
    for number in range(KEPT + 1):
        images._keep(depth_image(1000 + number, number * 10**9))
    assert images.find(header(0), SIZE, INFO, 0.5) is None
    assert metres(images.find(header(10**9), SIZE, INFO, 0.5)) == 1.001


def test_the_depth_of_an_expected_image_is_kept(images):
    """A slow network: many depth images come before the result, that of the image among them."""
    for before in (0, 1):
        begin = 10**12 * (before + 1)
        if before:
            images._keep(depth_image(2000, begin))
        images.expect(header(begin))
        if not before:
            images._keep(depth_image(2000, begin))
        for number in range(1, 3 * KEPT):
            images._keep(depth_image(3000, begin + number * 33_000_000))
        assert metres(images.find(header(begin), SIZE, INFO, 0.02)) == 2.0
        assert images.find(header(begin + 33_000_000), SIZE, INFO, 0.02) is None


def test_what_is_missing_is_said_with_its_remedy(images, node, health):
    def trouble() -> str:
        images.follow_publishers('/front/camera_info')
        return ' '.join(images.troubles)

    assert trouble() == ''
    assert images.find(header(0), SIZE, INFO, 0.02) is None
    assert 'on /front/depth/image_raw, and nobody publishes it. Remap front/depth' in trouble()
    kinds = {
        CameraInfo: 'its type is sensor_msgs',
        CompressedImage: 'in_transport:=compressedDepth',
    }
    for kind, text in kinds.items():
        context = Context()
        rclpy.init(context=context, domain_id=node.context.get_domain_id())
        peer = rclpy.create_node('peer', context=context)
        peer.create_publisher(kind, '/front/depth/image_raw', 1)
        wait_for(lambda text=text: text in trouble(), 'the type')
        peer.destroy_node()
        context.shutdown()
        wait_for(lambda: 'nobody publishes' in trouble(), 'the end')
    images._keep(depth_image(1000, 0))
    assert images.find(header(0), SIZE, None, 0.02) is None
    assert 'no camera_info came on /front/camera_info' in trouble()
    assert images.find(header(0), SIZE, CameraInfo(), 0.02) is None
    assert 'K of the camera_info is zero' in trouble()
    assert images.find(header(0), (4, 8), CameraInfo(k=K), 0.02) is None
    assert 'aspect ratio' in trouble()
    images._keep(depth_image(1000, 10**9, encoding='rgb8'))
    assert images.find(header(10**9), SIZE, INFO, 0.02) is None
    assert '16UC1' in trouble()
    images._keep(depth_image(1000, 2 * 10**9, data=b'1'))
    assert images.find(header(2 * 10**9), SIZE, INFO, 0.02) is None
    assert 'bytes of data, got 1' in trouble()
    images._keep(depth_image(1000, 3 * 10**9, frame_id='depth'))
    assert metres(images.find(header(3 * 10**9), SIZE, INFO, 0.02)) == 1.0
    assert 'are in the frame depth, the images in another' in trouble()
    images._keep(depth_image(1000, 4 * 10**9))
    assert metres(images.find(header(4 * 10**9), SIZE, INFO, 0.02)) == 1.0
    assert trouble() == ''
    assert health.depth == {
        'found': 2, 'no_depth': 1, 'stamps': 0, 'no_camera_info': 1, 'unusable': 4
    }  # fmt: skip


def test_intrinsics_of_raw_and_rectified_images():
    assert intrinsics_from_msg(INFO, SIZE) == Intrinsics(500, 510, 2.5, 1.5)
    assert intrinsics_from_msg(INFO, SIZE, is_rectified=True) == Intrinsics(400, 410, 2, 1)
    # A simulator may leave P out.
    without_p = CameraInfo(width=6, height=4, k=K)
    assert intrinsics_from_msg(without_p, SIZE, True) == Intrinsics(500, 510, 2.5, 1.5)
    assert intrinsics_from_msg(CameraInfo(k=K), SIZE) == Intrinsics(500, 510, 2.5, 1.5)


def test_intrinsics_follow_region_binning_and_size():
    full = CameraInfo(width=640, height=480, k=[600.0, 0, 319.5, 0, 600.0, 239.5, 0, 0, 1.0])
    half = Intrinsics(300, 300, 159.5, 119.5)
    assert intrinsics_from_msg(full, (240, 320)) == half
    full.binning_x = full.binning_y = 2
    assert intrinsics_from_msg(full, (240, 320)) == half
    full.roi = RegionOfInterest(x_offset=160, y_offset=120, width=320, height=240)
    assert intrinsics_from_msg(full, (120, 160)) == Intrinsics(300, 300, 79.5, 59.5)
    full.binning_y = 1
    found = intrinsics_from_msg(full, (240, 160))
    assert found == Intrinsics(300, 600, 79.5, 119.5)
    with pytest.raises(ValueError, match='images of 320 x 240 pixels, and the image has 320'):
        intrinsics_from_msg(full, (240, 320))


@pytest.mark.parametrize('k', [[0.0] * 9, [np.nan] * 9, [np.inf] * 9, [-500.0] * 9])
def test_senseless_intrinsics_are_refused(k):
    with pytest.raises(ValueError, match='zero|finite'):
        intrinsics_from_msg(CameraInfo(width=6, height=4, k=k), SIZE)
