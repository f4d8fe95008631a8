"""Position, markers and points of tracks, over DDS, from a rendered scene of known geometry."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

from tests.ros.made_vision_msgs import vision_msgs_environment
from tests.ros.node_process import NodeProcess, Peer, new_domain, pixels, wait_for
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.ros.conversions import stamp_to_msg

# Three shapes that the demo model finds; each is a plane at a distance of its own.
SCENE = Scene(700, height=192, width=240, num_frames=1, num_objects=3)
IMAGE, TRUE_IDS = next(iter(SCENE.frames()))
HEIGHT, WIDTH = TRUE_IDS.shape
WALL_M, NEAREST_M, STEP_M = 8.0, 1.5, 0.9
K = [260.0, 0.0, 118.0, 0.0, 250.0, 97.0, 0.0, 0.0, 1.0]


def true_depth() -> np.ndarray:
    """Depth of each pixel in metres, (H, W)."""
    depth = np.full(TRUE_IDS.shape, WALL_M)
    for number, true_id in enumerate(np.unique(TRUE_IDS[TRUE_IDS > 0])):
        depth[true_id == TRUE_IDS] = NEAREST_M + STEP_M * number
    return depth


def measured_depth() -> np.ndarray:
    """The same with 30 % of holes and 3 % of wrong depths."""
    rng = np.random.default_rng(5)
    depth = true_depth()
    wrong = rng.uniform(size=depth.shape) < 0.03
    depth[wrong] = rng.uniform(0.3, 10, wrong.sum())
    depth[rng.uniform(size=depth.shape) < 0.3] = np.nan
    return depth


class DepthCamera:
    """Publishes depth images and camera_info beside the images of a peer."""

    def __init__(self, peer: Peer, prefix: str = '') -> None:
        self.peer = peer
        self.images = peer.node.create_publisher(Image, f'{prefix}depth/image_raw', 10)
        self.infos = peer.node.create_publisher(CameraInfo, f'{prefix}camera_info', 10)
        self.next_ns = 1_800_000_000_000_000_000

    def wait_until_heard(self) -> None:
        for publisher in (self.images, self.infos):
            wait_for(publisher.get_subscription_count, 'a subscriber of depth')

    def message(self, stamp_ns: int, encoding: str) -> Image:
        depth = measured_depth()
        if encoding == '16UC1':
            values = np.nan_to_num(np.round(depth * 1000)).astype('>u2')
        else:
            values = depth.astype('<f4')
        msg = Image(height=HEIGHT, width=WIDTH, encoding=encoding)
        msg.is_bigendian = int(encoding == '16UC1')
        msg.step = WIDTH * values.itemsize
        msg.data = array.array('B', values.tobytes())
        msg.header.stamp = stamp_to_msg(stamp_ns)
        msg.header.frame_id = 'camera_optical'
        return msg

    def send(self, stamp_ns: int, encoding: str = '16UC1') -> None:
        self.images.publish(self.message(stamp_ns, encoding))

    def send_info(self) -> None:
        self.infos.publish(CameraInfo(width=WIDTH, height=HEIGHT, k=K))

    def ask(self, delay_s: float | None = 0.0, encoding: str = '16UC1', *names: str):
        """Send depth, then an image of which it is this much older, and wait for the results."""
        self.next_ns += 33_000_000
        if delay_s is not None:
            self.send(self.next_ns - round(delay_s * 1e9), encoding)
        return self.peer.ask(IMAGE, 'tracks', *names, stamp_ns=self.next_ns)

    def ask_until_located(self, encoding: str = '16UC1', *names: str):
        """Ask until depth and camera_info have arrived before the result of their image."""

        def located():
            self.send_info()
            found = self.ask(0.0, encoding, *names)
            tracks = found[0].tracks
            return found if tracks and all(map(is_located, tracks)) else None

        return wait_for(located, 'positions')


def is_located(track) -> bool:
    return not any(map(math.isnan, (track.position.x, track.position.y, track.position.z)))


def assert_nowhere(msg) -> None:
    assert msg.tracks
    for track in msg.tracks:
        for vector in (track.position, track.extent):
            assert all(map(math.isnan, (vector.x, vector.y, vector.z)))


@pytest.fixture(scope='module')
def camera(vision_msgs, tmp_path_factory):
    domain = new_domain()
    process = NodeProcess(
        tmp_path_factory.mktemp('depth') / 'log',
        domain,
        environment=vision_msgs_environment(),
        model='demo',
        input_reliability='reliable',
        confirm_frames=1,
        depth=True,
        publish_markers=True,
        publish_points=True,
        publish_detections3d=True,
    )
    peer = Peer(domain)
    camera = DepthCamera(peer)
    camera.log = process.log
    try:
        peer.wait_for_state('active')
        peer.wait_until_heard()
        peer.subscribe('tracks', 'instances')
        peer.subscribe('points', kind=PointCloud2)
        peer.subscribe('detections3d', kind=vision_msgs.Detection3DArray)
        yield camera
    finally:
        peer.close()
        process.kill()


def points_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    depth = true_depth()[mask]
    return np.stack(
        [(columns - K[2]) / K[0] * depth, (rows - K[5]) / K[4] * depth, depth], axis=-1
    )


def test_without_depth_and_camera_info_the_tracks_are_nowhere(camera):
    # First, before any info is sent.
    (tracks,) = camera.ask(None)
    assert_nowhere(tracks)
    camera.wait_until_heard()
    wait_for(lambda: not camera.ask(None) and None or 'No depth: ' in camera.log(), 'the warning')
    assert 'depth/image_raw' in camera.log()
    wait_for(
        lambda: camera.ask(0.0) and 'no camera_info came on /camera_info' in camera.log(),
        'the warning of camera_info',
    )
    camera.peer.wait_for_warning('no camera_info came')
    assert int(camera.peer.health['depth_no_depth']) >= 1
    assert int(camera.peer.health['depth_no_camera_info']) >= 1


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_positions_are_within_two_percent(camera, encoding):
    tracks, instances = camera.ask_until_located(encoding, 'instances')
    ids = pixels(instances)
    assert len(tracks.tracks) >= 2
    for track in tracks.tracks:
        seen = TRUE_IDS[ids == track.id]
        true_id = np.bincount(seen[seen > 0]).argmax()
        points = points_of((true_id == TRUE_IDS) & (ids == track.id))
        center = np.median(points, axis=0)
        position = track.position.x, track.position.y, track.position.z
        assert np.linalg.norm(np.subtract(position, center)) < 0.02 * np.linalg.norm(center)
        size = np.ptp(points, axis=0)
        assert (track.extent.x, track.extent.y) == pytest.approx(size[:2], rel=0.15)
        assert track.extent.z < 0.05 * center[2]


def test_markers_detections_and_points_agree_with_the_tracks(camera):
    names = ('instances', 'points', 'detections3d')
    tracks, instances, points, detections = camera.ask_until_located('16UC1', *names)
    assert points.header == detections.header == tracks.header
    by_id = {str(track.id): track for track in tracks.tracks}
    assert {detection.id for detection in detections.detections} == set(by_id)
    for detection in detections.detections:
        track = by_id[detection.id]
        assert detection.results[0].pose.pose.position == track.position
        assert detection.bbox.size == track.extent
    assert (points.height, points.width) == (HEIGHT, WIDTH)
    cloud = np.frombuffer(points.data, np.dtype(
        [('xyz', '<f4', 3), ('rgb', '<u4'), ('class', '<u2'), ('id', '<u2')]
    )).reshape(HEIGHT, WIDTH)  # fmt: skip
    np.testing.assert_array_equal(cloud['id'], pixels(instances))
    holes = np.isnan(measured_depth())
    np.testing.assert_array_equal(np.isnan(cloud['xyz']).any(-1), holes)
    expected = np.nan_to_num(measured_depth())
    np.testing.assert_allclose(np.nan_to_num(cloud['xyz'][..., 2]), expected, atol=1e-3)
    np.testing.assert_array_equal(cloud['rgb'] >> 16, IMAGE[..., 0])


def test_markers_have_the_header_and_the_tracks(camera):
    heard = []
    camera.peer.node.create_subscription(MarkerArray, 'segmentation/markers', heard.append, 10)
    (tracks,) = camera.ask_until_located()

    def boxes():
        camera.ask()
        return [m for msg in heard for m in msg.markers if m.ns == 'boxes']

    found = wait_for(boxes, 'boxes')
    assert {marker.id for marker in found} <= {track.id for track in tracks.tracks}
    assert {marker.header.frame_id for marker in found} == {'camera_optical'}
    assert all(m.type == Marker.CUBE for m in found)


def test_the_stamps_may_differ_by_the_tolerance(camera):
    camera.ask_until_located()
    camera.next_ns += 10**9
    (result,) = camera.peer.set_parameters(depth_tolerance_s=0.05)
    assert result.successful, result.reason
    wait_for(lambda: all(map(is_located, camera.ask(0.04)[0].tracks)), 'late depth')
    (result,) = camera.peer.set_parameters(depth_tolerance_s=0.005)
    assert result.successful, result.reason
    camera.next_ns += 10**9
    (tracks,) = camera.ask(0.01)
    assert_nowhere(tracks)
    wait_for(lambda: camera.ask(0.01) and 'above depth_tolerance_s' in camera.log(), 'the warning')
    (result,) = camera.peer.set_parameters(depth_tolerance_s=0.02)
    camera.ask_until_located()
    camera.peer.wait_for_warning()


def test_depth_is_switched_off_and_on_while_it_runs(camera):
    camera.ask_until_located()
    camera.peer.set_parameters(depth=False)
    wait_for(lambda: not camera.images.get_subscription_count(), 'the end of the subscription')
    camera.next_ns += 10**9
    (tracks,) = camera.ask(None)
    assert_nowhere(tracks)
    camera.peer.set_parameters(depth=True)
    camera.wait_until_heard()
    camera.ask_until_located()


def test_one_camera_of_two_has_depth(tmp_path):
    domain = new_domain()
    settings = {'model': 'demo', 'input_reliability': 'reliable', 'confirm_frames': 1}
    words = ('-p', 'front.depth:=true')
    process = NodeProcess(tmp_path / 'log', domain, *words, cameras='[front, rear]', **settings)
    peers = {name: Peer(domain, camera=name) for name in ('front', 'rear')}
    try:
        for peer in peers.values():
            peer.wait_for_state('active')
            peer.wait_until_heard()
            peer.subscribe('tracks')
        camera = DepthCamera(peers['front'], 'front/')
        camera.wait_until_heard()
        assert not peers['rear'].node.count_subscribers('rear/depth/image_raw')
        camera.ask_until_located()
        (tracks,) = peers['rear'].ask(IMAGE)
        assert_nowhere(tracks)
    finally:
        for peer in peers.values():
            peer.close()
        process.kill()
