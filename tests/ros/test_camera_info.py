"""Which camera_info an image gets."""

from __future__ import annotations

import pytest
import rclpy
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from tests.ros.node_process import new_domain, wait_for
from videomt_ros.ros.camera_info import KEPT, CameraInfos, camera_info_topic


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    node = rclpy.create_node('segmenter', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture(params=[ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def camera(node, request):
    """Publishes an info of a stamp, whose width tells it from others; and what hears it."""
    infos = CameraInfos(node, '/front/image_raw')
    infos.open()
    infos.open()
    qos = QoSProfile(depth=KEPT, reliability=request.param)
    publisher = node.create_publisher(CameraInfo, '/front/camera_info', qos)
    wait_for(publisher.get_subscription_count, 'the subscriber')
    assert publisher.get_subscription_count() == 1

    def send(sec: int, width: int) -> None:
        header = Header(stamp=Time(sec=sec), frame_id='lens')
        publisher.publish(CameraInfo(header=header, width=width, k=[float(width)] * 9))
        asked = Header(stamp=Time(sec=sec))

        def is_there() -> bool:
            node.executor.spin_once(0.1)
            info = infos.of_image(asked)
            return info is not None and info.width == width

        wait_for(is_there, 'the info')

    return send, infos


@pytest.mark.parametrize(
    ('images', 'infos'),
    [
        ('/image_raw', '/camera_info'),
        ('/front/image_raw', '/front/camera_info'),
        ('/robot/camera/color/image_rect', '/robot/camera/color/camera_info'),
    ],
)
def test_infos_are_beside_the_images(images, infos):
    assert camera_info_topic(images) == infos


def test_an_image_gets_the_info_of_its_stamp_else_the_newest(camera):
    send, infos = camera
    asked = Header(stamp=Time(sec=3, nanosec=1), frame_id='camera')
    assert infos.of_image(asked) is None
    send(3, 30)
    send(5, 50)
    send(4, 40)
    for stamp, width in ((3, 30), (4, 40), (5, 50), (6, 40), (1, 40)):
        header = Header(stamp=Time(sec=stamp), frame_id='camera')
        info = infos.of_image(header)
        assert (info.width, list(info.k)) == (width, [float(width)] * 9)
        # The header of the image, also where the info is another's; what is kept stays as it is.
        assert info.header == header
    send(4, 41)
    assert infos.of_image(Header(stamp=Time(sec=4))).width == 41
    infos.close()
    assert infos.of_image(asked) is None


def test_old_infos_are_forgotten(node):
    infos = CameraInfos(node, '/image_raw')
    for sec in range(1, KEPT + 2):
        infos._keep(CameraInfo(header=Header(stamp=Time(sec=sec)), width=sec))
    assert infos.of_image(Header(stamp=Time(sec=2))).width == 2
    assert infos.of_image(Header(stamp=Time(sec=1))).width == KEPT + 1
    infos.close()
