"""Place and size of tracks in rendered scenes of known geometry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from videomt_ros.inference.depth import (
    MIN_POINTS,
    Intrinsics,
    Place,
    fit_depth,
    locate,
    to_points,
)
from videomt_ros.structures import Segment, Segments, TrackState

HEIGHT, WIDTH = 360, 640
CAMERA = Intrinsics(500.0, 510.0, 322.5, 178.0)


class Scene:
    """Planes, boxes and balls before a wall, rendered by a ray per pixel."""

    def __init__(self, wall: float = 6.0, height: int = HEIGHT, width: int = WIDTH) -> None:
        rows, columns = np.mgrid[:height, :width]
        self.rays = np.stack(
            [
                (columns - CAMERA.cx) / CAMERA.fx,
                (rows - CAMERA.cy) / CAMERA.fy,
                np.ones((height, width)),
            ],
            -1,
        )
        self.depth = np.full((height, width), float(wall))
        self.ids = np.zeros((height, width), np.uint16)

    def _put(self, depth: np.ndarray, track_id: int) -> None:
        nearer = depth < self.depth
        self.depth[nearer] = depth[nearer]
        self.ids[nearer] = track_id

    def plane(self, center, size, track_id: int) -> None:
        """A rectangle that faces the camera."""
        x, y, z = center
        points = self.rays * z
        inside = (abs(points[..., 0] - x) <= size[0] / 2) & (
            abs(points[..., 1] - y) <= size[1] / 2
        )
        self._put(np.where(inside, z, np.inf), track_id)

    def box(self, center, size, track_id: int) -> None:
        """A box along the axes, by the slabs that a ray passes."""
        low, high = np.subtract(center, np.divide(size, 2)), np.add(center, np.divide(size, 2))
        with np.errstate(divide='ignore'):
            first, last = low / self.rays, high / self.rays
        near = np.minimum(first, last).max(-1)
        far = np.maximum(first, last).min(-1)
        self._put(np.where(near <= far, near, np.inf), track_id)

    def ball(self, center, radius: float, track_id: int) -> None:
        b = self.rays @ np.array(center)
        a = (self.rays**2).sum(-1)
        disc = b**2 - a * (np.dot(center, center) - radius**2)
        hit = disc > 0
        depth = np.where(hit, (b - np.sqrt(np.where(hit, disc, 0.0))) / a, np.inf)
        self._put(depth, track_id)

    def points(self, track_id: int) -> np.ndarray:
        """The true points of the visible surface, (P, 3)."""
        mask = self.ids == track_id
        return self.rays[mask] * self.depth[mask][:, None]

    def measured(self, rng, holes: float, salt: float, mixed: bool) -> np.ndarray:
        """What a depth camera would see: holes, wrong depths, edges that mix near and far."""
        depth = self.depth.copy()
        if mixed:
            padded = np.pad(depth, 2, 'edge')
            shifted = [
                padded[2 + dy : 2 + dy + depth.shape[0], 2 + dx : 2 + dx + depth.shape[1]]
                for dx, dy in ((-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (1, 1))
            ]
            edge = np.ptp(np.array(shifted), axis=0) > 0.2
            weights = rng.uniform(size=depth.shape)
            mix = weights * np.min(shifted, 0) + (1 - weights) * np.max(shifted, 0)
            depth = np.where(edge, mix, depth)
        depth += rng.normal(size=depth.shape) * 0.004 * depth
        wrong = rng.uniform(size=depth.shape) < salt
        depth[wrong] = rng.uniform(0.3, 10.0, wrong.sum())
        depth[rng.uniform(size=depth.shape) < holes] = np.nan
        return depth.astype(np.float32)

    def segments(self) -> Segments:
        return segments_of(self.ids)


def segments_of(ids: np.ndarray) -> Segments:
    found = []
    for track_id in np.unique(ids[ids > 0]).tolist():
        rows, columns = np.nonzero(ids == track_id)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        found.append(
            Segment(
                track_id,
                0,
                'thing',
                True,
                0.9,
                TrackState.CONFIRMED,
                1,
                0,
                tuple(map(int, box)),
                len(rows),
            )  # fmt: skip
        )
    return Segments(0, ids, tuple(found), 3)


def dilate(ids: np.ndarray, pixels: int) -> np.ndarray:
    """Masks that are too wide, onto what is behind."""
    wide = cv2.dilate(ids, np.ones((2 * pixels + 1,) * 2, np.uint8))
    return np.where(ids > 0, ids, wide)


def assert_position(place: Place, points: np.ndarray) -> None:
    """Within 2 % of the distance."""
    center = np.median(points, 0)
    assert np.linalg.norm(np.subtract(place.position, center)) < 0.02 * np.linalg.norm(center)


def assert_extent(place: Place, points: np.ndarray, wide: float = 0.12) -> None:
    """Within a share to the sides, and a quarter or some noise of the camera along it."""
    size = np.ptp(points, axis=0)
    assert place.extent[:2] == pytest.approx(size[:2], rel=wide, abs=0.015)
    assert place.extent[2] == pytest.approx(size[2], rel=0.3, abs=0.12)
    middle, distance = (points.min(0) + points.max(0)) / 2, np.linalg.norm(points.mean(0))
    assert np.linalg.norm(np.subtract(place.box_center, middle)) < 0.03 * distance


def full_scene(wall: float) -> Scene:
    scene = Scene(wall)
    scene.plane((-1.2, -0.3, 3.0), (0.8, 0.6, 0), 1)
    scene.ball((0.1, 0.2, 2.5), 0.4, 2)
    scene.box((1.4, 0.3, 3.5), (0.5, 0.9, 0.7), 3)
    scene.plane((-1.9, 0.9, 4.0), (0.3, 0.5, 0), 4)
    scene.plane((-0.55, -0.15, 1.5), (0.08, 1.0, 0), 5)  # a pole before the first plane
    return scene


@pytest.fixture(scope='module', params=[6.0, 4.6], ids=['far', 'near'])
def scene(request):
    """Objects before a wall, which is 2 m or 0.6 m behind the last of them."""
    return full_scene(request.param)


@pytest.mark.parametrize('too_wide', [0, 2, 4])
@pytest.mark.parametrize(
    ('holes', 'salt', 'mixed'), [(0, 0, False), (0.3, 0.05, True)], ids=['clean', 'noisy']
)
def test_places_are_within_two_percent(scene, too_wide, holes, salt, mixed):
    depth = scene.measured(np.random.default_rng(1), holes, salt, mixed)
    places = locate(segments_of(dilate(scene.ids, too_wide)), depth, CAMERA)
    assert set(places) == {1, 2, 3, 4, 5}
    for track_id, place in places.items():
        points = scene.points(track_id)
        assert_position(place, points)
        # What is said of extents: a small mask that is too wide takes a near background in.
        if track_id != 4 or scene.depth.max() == 6.0 or not (too_wide or mixed):
            assert_extent(place, points)


def test_a_mask_that_is_nearly_half_background_is_located_at_the_object():
    scene = Scene(5.0)
    scene.plane((0.0, 0.0, 2.0), (0.6, 0.4, 0), 1)
    points = scene.points(1)
    rows, columns = np.nonzero(scene.ids)
    scene.ids[
        rows.min() : rows.max() + 1, columns.max() : columns.max() + len(set(columns)) * 4 // 5
    ] = 1
    (place,) = locate(segments_of(scene.ids), scene.depth.astype(np.float32), CAMERA).values()
    assert_position(place, points)
    assert_extent(place, points)


def test_a_floor_is_one_surface_over_its_whole_depth():
    """Up to 12 m, where its rows are far apart."""
    scene = Scene(100.0)
    floor = 1.2 / np.where(scene.rays[..., 1] > 0.1, scene.rays[..., 1], np.nan)
    seen = np.isfinite(floor)
    scene.depth[seen], scene.ids[seen] = floor[seen], 1
    (place,) = locate(segments_of(scene.ids), scene.depth.astype(np.float32), CAMERA).values()
    points = scene.points(1)
    assert place.position[1] == pytest.approx(1.2, rel=0.02)
    assert place.position[2] == pytest.approx(np.median(points[:, 2]), rel=0.1)
    assert place.extent[1] == pytest.approx(0, abs=0.05)
    assert place.extent[2] > 0.6 * np.ptp(points[:, 2])


def test_an_object_at_the_border_is_located_by_what_is_seen_of_it():
    scene = Scene()
    scene.plane((-1.0, -0.6, 2.0), (1.0, 0.8, 0), 1)  # beyond the left and the upper border
    assert scene.ids[0, 0] == 1
    depth = scene.measured(np.random.default_rng(2), 0.3, 0.05, True)
    (place,) = locate(segments_of(scene.ids), depth, CAMERA).values()
    assert_position(place, scene.points(1))
    assert_extent(place, scene.points(1))


def test_the_whole_image_may_be_one_object():
    scene = Scene(3.0)
    scene.ids[:] = 1
    (place,) = locate(segments_of(scene.ids), scene.depth.astype(np.float32), CAMERA).values()
    assert_position(place, scene.points(1))
    assert_extent(place, scene.points(1), wide=0.02)


@pytest.mark.parametrize(
    ('height', 'width', 'found'),
    [(1, 1, False), (2, 2, False), (1, 7, False), (1, 8, True), (12, 1, True), (3, 3, True)],
)
def test_small_masks(height, width, found):
    scene = Scene(4.0)
    scene.ids[100 : 100 + height, 200 : 200 + width] = 1
    scene.depth[scene.ids == 1] = 2.0
    places = locate(segments_of(scene.ids), scene.depth.astype(np.float32), CAMERA)
    assert bool(places) is found is (height * width >= MIN_POINTS)
    for place in places.values():
        assert_position(place, scene.points(1))
        pixel = np.array((2.0 / CAMERA.fx, 2.0 / CAMERA.fy))
        np.testing.assert_allclose(place.extent[:2], pixel * (width, height), rtol=0.05)


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1)])
def test_small_images(size):
    ids = np.ones(size, np.uint16)
    depth = np.full(size, 2.0, np.float32)
    places = locate(segments_of(ids), depth, Intrinsics(50, 50, 0, 0))
    assert len(places) == (ids.size >= MIN_POINTS)
    assert to_points(depth, Intrinsics(50, 50, 0, 0)).shape == (*size, 3)


def test_a_track_without_depth_has_no_place():
    scene = full_scene(6.0)
    depth = scene.depth.astype(np.float32)
    depth[scene.ids == 2] = np.nan
    few = np.flatnonzero(scene.ids == 3)
    depth.reshape(-1)[few[: len(few) - MIN_POINTS]] = np.nan  # fewer than MIN_SHARE
    places = locate(scene.segments(), depth, CAMERA)
    assert set(places) == {1, 4, 5}
    assert locate(scene.segments(), np.full_like(depth, np.nan), CAMERA) == {}
    assert locate(segments_of(np.zeros_like(scene.ids)), depth, CAMERA) == {}


def test_a_lost_track_has_no_place():
    ids = np.zeros((20, 20), np.uint16)
    lost = Segment(1, 0, 'thing', True, 0.9, TrackState.LOST, 5, 0, (2, 2, 9, 9), 0)
    assert locate(Segments(0, ids, (lost,), 3), np.ones((20, 20), np.float32), CAMERA) == {}


def test_depth_of_another_size_is_resized():
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fit_depth(depth, (2, 3)) is depth
    np.testing.assert_array_equal(fit_depth(depth, (4, 6)), depth.repeat(2, 0).repeat(2, 1))
    assert fit_depth(np.zeros((240, 424), np.float32), (480, 848)).shape == (480, 848)
    with pytest.raises(ValueError, match='of 640 x 480 pixels and of its aspect ratio, got 848'):
        fit_depth(np.zeros((480, 848), np.float32), (480, 640))
    with pytest.raises(ValueError, match='depth of shape'):
        locate(segments_of(np.ones((4, 4), np.uint16)), depth, CAMERA)


def test_points_are_those_of_the_rays():
    scene = full_scene(6.0)
    depth = scene.depth.astype(np.float32)
    depth[5, 7] = np.nan
    points = to_points(depth, CAMERA)
    np.testing.assert_allclose(points, scene.rays * depth[..., None], rtol=1e-5, atol=1e-6)
    assert np.isnan(points[5, 7]).all()


def test_intrinsics_follow_the_size_of_the_image():
    half = CAMERA.scaled(0.5, 0.5)
    # The centre of the image is the same, whatever its size is.
    assert (half.cx - 159.5) * 2 == pytest.approx(CAMERA.cx - 319.5)
    assert (half.fx, half.fy) == (250, 255)
    for wrong in ((0, 1, 1, 1), (1, -1, 1, 1), (1, 1, np.nan, 1)):
        with pytest.raises(ValueError, match='finite intrinsics and fx, fy above 0'):
            Intrinsics(*wrong)
