"""Videos of drawn shapes with exact truth, for the demo, for training and for tests.

Six classes of shapes, each with its own texture and in any colour, move over a textured background
under a moving camera, or before sky, ground and walls that have classes of their own. They
overlap, leave the view and return, or are born late; light, noise and blur vary. A scene is
determined by its seed and its size alone, any frame of it can be drawn on its own, and lengths are
fractions of the image's short side, so that a scene looks alike at every size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.synthetic.away import check_away_frames, draw_way_out
from videomt_ros.datasets.synthetic.hard import NUM_OBJECTS, Shake, harden, liken
from videomt_ros.datasets.synthetic.shapes import OUTLINES, Shape
from videomt_ros.datasets.synthetic.stuff import STUFF_NAMES, Stuff, draw_stuff
from videomt_ros.datasets.synthetic.wall import RADII, Walk, Wall, check_hidden_frames, draw_walk

CLASS_NAMES = tuple(OUTLINES)
"""Classes of the shapes: circle, square, triangle, star, ring, cross."""
ALL_NAMES = CLASS_NAMES + STUFF_NAMES
"""Classes of scenes with stuff: first the things, then the stuff."""


class Scene:
    """One synthetic video, which its seed and size determine.

    Args:
        seed: any non-negative integer; equal seeds and sizes give equal pixels.
        height: image height in pixels, at least 8.
        width: image width in pixels, at least 8.
        num_frames: length; objects are born within the first half of it.
        num_objects: number of shapes in the scene; None: 3 to 6, in hard scenes 5 to 9.
        hidden_frames: fewest and most frames for which all shapes vanish behind a wall, again and
            again; None: no wall, which leaves the scene of a seed as it was before there were any.
        stuff: fill the background with sky, ground and walls, which have classes: then every
            pixel has one. The shapes and their paths stay the same.
        away_frames: fewest and most frames for which each shape leaves the view through a side,
            again and again; None: only some shapes leave. Not together with `hidden_frames`.
        alike: number of shapes that have class, colours, texture and size in common, 2 or more;
            0: each shape has its own. The scene has at least as many shapes.
        hard: draw a harder scene: more shapes, of which some are thin, some are of one class or
            look alike, and some cover others for long; textures that move over their shapes; a
            camera that may shake.

    Attributes:
        class_of: identity -> class id, an index into `ALL_NAMES`. Stuff has one identity per
            class, after those of the shapes, whether or not any of it is ever in view.
    """

    def __init__(
        self,
        seed: int,
        height: int = 384,
        width: int = 480,
        num_frames: int = 60,
        num_objects: int | None = None,
        hidden_frames: tuple[int, int] | None = None,
        stuff: bool = False,
        away_frames: tuple[int, int] | None = None,
        alike: int = 0,
        hard: bool = False,
    ) -> None:
        if min(height, width) < 8 or num_frames < 1 or seed < 0:
            raise ValueError(
                'Expected a scene of at least 8 x 8 pixels, 1 frame and a seed of 0 or more, '
                f'got {height} x {width}, {num_frames} frames, seed {seed}.'
            )
        check_hidden_frames(hidden_frames)
        check_away_frames(away_frames)
        if hidden_frames is not None and away_frames is not None:
            raise ValueError('Expected hidden_frames or away_frames, got both. Leave one out.')
        if alike < 0 or alike == 1 or (num_objects is not None and alike > num_objects):
            limit = '' if num_objects is None else f' up to num_objects, {num_objects}'
            raise ValueError(f'Expected alike as 0, or as 2 or more shapes{limit}, got {alike}.')
        self.seed, self.height, self.width, self.num_frames = seed, height, width, num_frames
        self._rng = np.random.default_rng(seed)
        own_rng = np.random.default_rng((seed, 1))  # leaves other scenes of the seed as they are
        if num_objects is None and hard:
            num_objects = max(alike, int(own_rng.integers(NUM_OBJECTS[0], NUM_OBJECTS[1] + 1)))
        elif num_objects is None:
            num_objects = max(alike, int(self._rng.integers(3, 7)))
        self._short = min(height, width)
        self._view = np.array([[self._short, 0, width / 2], [0, self._short, height / 2]], float)
        self._half_view = np.array([width, height]) / (2 * self._short)
        self._background_colours = self._draw_colours(saturation=(0, 70), value=(50, 190))
        # Objects lie on a jittered grid, so that they overlap now and then but not for long.
        order = self._rng.permutation(num_objects)
        self._objects = [self._draw_object(int(i), num_objects) for i in order]
        self._shake = Shake(own_rng) if hard else None
        if hard:
            self._objects = harden(own_rng, self._objects, self._half_view)
        self._objects[:alike] = [liken(item, self._objects[0]) for item in self._objects[:alike]]
        self.class_of = {
            i + 1: CLASS_NAMES.index(item.name) for i, item in enumerate(self._objects)
        }
        self._camera_sway = self._rng.uniform(-1, 1, (2, 4)) * [0.12, 0.12, 0.08, 0.08]
        self._camera_frequency = self._rng.uniform(0.02, 0.09, (2, 4))
        self._light_sway = self._rng.uniform(0, 0.18)
        self._light_frequency, self._light_phase = (
            self._rng.uniform(0.03, 0.25),
            self._rng.random(),
        )
        self._noise = self._rng.uniform(0, 9)
        self._blur = max(0.0, self._rng.uniform(-0.006, 0.006))  # half of the scenes are sharp
        if stuff:
            self._first_stuff = num_objects + 1
            for number in range(len(STUFF_NAMES)):
                self.class_of[self._first_stuff + number] = len(CLASS_NAMES) + number
            tones = np.array([item.colours[0] for item in self._objects]).reshape(-1, 3)
            self._stuff: Stuff | None = draw_stuff(self._rng, tones)
        else:
            self._stuff, self._background = None, self._draw_background()
        if away_frames is not None:
            self._objects = [self._send_out(item, away_frames) for item in self._objects]
        # Drawn last, so that scenes without a wall do not depend on it.
        self._wall: Wall | None = None
        if hidden_frames is not None:
            radii = [0.0] * num_objects
            for number, item in enumerate(self._objects):
                radii[number] = self._rng.uniform(*RADII)
                radius = radii[0] if number < alike else radii[number]
                self._objects[number] = self._send_behind(item, radius, hidden_frames)
            self._wall = Wall(self._draw_colours(saturation=(0, 60), value=(60, 160)))

    def __len__(self) -> int:
        return self.num_frames

    @property
    def has_stuff(self) -> bool:
        """Whether sky, ground and walls have classes in this scene."""
        return self._stuff is not None

    def frames(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint16]]]:
        """Draw all frames in order; see `frame`."""
        return (self.frame(t) for t in range(self.num_frames))

    def frame(self, t: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Draw one frame.

        Args:
            t: frame number; beyond `num_frames` the shapes continue along their paths.

        Returns:
            The image (H, W, 3), uint8 RGB, and the identity of each pixel (H, W), uint16:
            0 background without a class, else a key of `class_of`. What another shape covers does
            not count.
        """
        canvas, ids = self._paint(t)
        rng = np.random.default_rng((self.seed, t))
        noise = rng.standard_normal(canvas.shape, np.float32) * np.float32(self._noise)
        return self._expose(canvas, noise, t), ids

    def reduced_frame(self, t: int, factor: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Draw one frame for a network: reduced in size, as the image of a camera would be.

        The noise of a reduced frame is drawn at its size, which takes a fraction of the time.

        Args:
            t: frame number; see `frame`.
            factor: whole number by which height and width are divided; they are its multiples.

        Returns:
            Image (H / factor, W / factor, 3) and identities; see `frame`.
        """
        if factor == 1:
            return self.frame(t)
        canvas, ids = self._paint(t)
        size = self.width // factor, self.height // factor
        canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
        middle = factor // 2
        rng = np.random.default_rng((self.seed, t))
        # The mean of n samples of noise has 1 / sqrt(n) of its standard deviation.
        noise = _some_noise(rng, canvas.shape) * np.float32(self._noise / factor)
        return self._expose(canvas, noise, t), ids[middle::factor, middle::factor]

    def _paint(self, t: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Draw one frame without light and noise; see `frame`."""
        camera, view = self._camera(t), self._view
        size = (self.height, self.width)
        hider = 0
        if self._stuff is None:
            canvas, ids = self._warp_background(camera), np.zeros(size, np.uint16)
        else:
            canvas, ids = self._stuff.paint(camera, size, self._first_stuff)
            hider = self._first_stuff + STUFF_NAMES.index('wall')
        for identity, item in enumerate(self._objects, start=1):
            if t >= item.birth:
                item.paint(canvas, ids, view if item.in_view else camera, identity, t)
        if self._wall is not None:
            self._wall.paint(canvas, ids, camera, hider)
        if self._blur:
            canvas = cv2.GaussianBlur(canvas, (0, 0), max(self._blur * self._short, 0.1))
        return canvas, ids

    def _draw_colours(
        self, saturation: tuple[int, int], value: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Draw two RGB tones of one random hue, (2, 3), 0..255."""
        hue = self._rng.integers(0, 180)
        tones = [
            [
                (hue + self._rng.integers(0, 20)) % 180,
                *(self._rng.integers(*limits) for limits in (saturation, value)),
            ]
            for _ in range(2)
        ]
        image = np.array([tones], np.uint8)
        return cv2.cvtColor(image, cv2.COLOR_HSV2RGB)[0].astype(np.float64)

    def _draw_object(self, place: int, num_objects: int) -> Shape:
        rng = self._rng
        kind = rng.choice(['stays', 'leaves', 'late'], p=[0.5, 0.25, 0.25])
        columns = int(np.ceil(np.sqrt(num_objects * self._half_view[0] / self._half_view[1])))
        rows = int(np.ceil(num_objects / columns))
        cell = np.array([place % columns, place // columns])
        centre = (cell + rng.uniform(0.2, 0.8, 2)) / [columns, rows] * 2 - 1
        centre = centre * self._half_view * 0.9
        sway = rng.uniform(0.03, 0.20, (2, 2))
        frequency = rng.uniform(0.03, 0.14, (2, 2))
        phase = rng.uniform(0, 2 * np.pi, (2, 2))
        if kind == 'leaves':
            # One slow swing that is wider than the view: out through a side, and back.
            axis = int(rng.integers(2))
            sway[0, axis] = self._half_view[axis] * rng.uniform(1.1, 1.5)
            frequency[0, axis] = rng.uniform(0.04, 0.09)
        # Limits the distance that a shape moves in one frame.
        speed = np.abs(sway * frequency).sum()
        frequency *= min(1.0, 0.05 / speed)
        away = 0.0  # distance from the background's tones, so that the shape stands out
        while away < 110:
            bright = self._draw_colours(saturation=(110, 255), value=(190, 255))[:1]
            colours = np.concatenate([bright, bright * rng.uniform(0.3, 0.55)])
            away = np.abs(colours - self._background_colours.mean(0)).sum(axis=1).min()
        name = CLASS_NAMES[int(rng.integers(len(CLASS_NAMES)))]
        return Shape(
            name=name,
            radius=rng.uniform(0.11, 0.20),
            centre=centre,
            sway=sway,
            frequency=frequency,
            phase=phase,
            spin=(rng.uniform(0, 2 * np.pi), rng.uniform(-0.06, 0.06)),
            birth=int(rng.integers(1, max(2, self.num_frames // 2))) if kind == 'late' else 0,
            colours=colours,
            pitch=rng.uniform(0.4, 0.6),
            outline=OUTLINES[name],
        )

    def _send_behind(self, item: Shape, radius: float, hidden_frames: tuple[int, int]) -> Shape:
        """Return the same shape, smaller and upright, on a path behind the wall."""
        item = _upright(item, radius)
        return self._walk(
            item, draw_walk(self._rng, *item.reach(), hidden_frames, self.num_frames)
        )

    def _send_out(self, item: Shape, away_frames: tuple[int, int]) -> Shape:
        """Return the same shape, upright, on a path that leaves the view and returns."""
        item = replace(_upright(item, item.radius), in_view=True)
        half_width = float(self._half_view[0])
        return self._walk(
            item, draw_way_out(self._rng, *item.reach(), half_width, away_frames, self.num_frames)
        )

    def _walk(self, item: Shape, walk: Walk) -> Shape:
        """Return the same shape on a path whose x is that of the walk, and which shows all y."""
        sway, frequency, phase = item.sway.copy(), item.frequency.copy(), item.phase.copy()
        sway[:, 0] = walk.sway, 0
        frequency[0, 0], phase[0, 0] = walk.frequency, walk.phase
        sway[:, 1] = self._rng.uniform(0.03, 0.12, 2)
        centre = np.array([walk.centre, np.clip(item.centre[1], -0.3, 0.3)])
        return replace(item, centre=centre, sway=sway, frequency=frequency, phase=phase, birth=0)

    def _draw_background(self) -> NDArray[np.uint8]:
        """Draw a texture that exceeds the view by half on each side, (2H, 2W, 3) uint8."""
        height, width = 2 * self.height, 2 * self.width
        # Noise at three scales, so smooth that few pixels hold it.
        small = max(1, width // 4), max(1, height // 4)
        noise = np.zeros(small[::-1], np.float32)
        for cells in (3, 8, 20):
            coarse = self._rng.random((cells, cells * width // height + 1), np.float32)
            noise += cv2.resize(coarse, small, interpolation=cv2.INTER_CUBIC) / 3
        blend = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        kind = self._rng.integers(3)
        y = np.arange(height, dtype=np.float32)[:, None] / np.float32(self._short)
        x = np.arange(width, dtype=np.float32) / np.float32(self._short)
        direction, pitch = self._rng.uniform(0, np.pi), self._rng.uniform(0.12, 0.4)
        if kind == 1:
            along = x * np.float32(np.cos(direction) / pitch)
            along = along + y * np.float32(np.sin(direction) / pitch)
            blend = 0.5 * blend + np.float32(0.5) * (along - np.floor(along) < 0.5)
        elif kind == 2:
            checks = (np.floor(x / pitch) + np.floor(y / pitch)) % 2
            blend = 0.6 * blend + 0.4 * checks.astype(np.float32)
        shares = np.linspace(0, 1, 256)[:, None, None]
        first, second = self._background_colours
        table = (first + shares * (second - first)).astype(np.uint8)
        return cv2.applyColorMap(np.clip(blend * 255, 0, 255).astype(np.uint8), table)

    def _camera(self, t: float) -> NDArray[np.float64]:
        """Return the affine matrix (2, 3) from the world, in short sides, to image pixels."""
        course = (self._camera_sway * np.sin(self._camera_frequency * t)).sum(axis=0)
        x, y, turn, zoom = course if self._shake is None else course + self._shake.at(t)
        scale = self._short * (1 + zoom)
        cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
        return np.array(
            [
                [cos, -sin, self.width / 2 + x * self._short],
                [sin, cos, self.height / 2 + y * self._short],
            ]
        )

    def _warp_background(self, camera: NDArray[np.float64]) -> NDArray[np.uint8]:
        texture_to_world = (
            np.array([[1, 0, -self.width], [0, 1, -self.height], [0, 0, self._short]])
            / self._short
        )
        return cv2.warpAffine(
            self._background,
            camera @ texture_to_world,
            (self.width, self.height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )

    def _expose(
        self, canvas: NDArray[np.uint8], noise: NDArray[np.float32], t: int
    ) -> NDArray[np.uint8]:
        """Apply light and sensor noise to one frame."""
        swing = np.sin(self._light_frequency * t + 2 * np.pi * self._light_phase)
        light = 1 + self._light_sway * swing
        return np.clip(canvas * np.float32(light) + noise, 0, 255).astype(np.uint8)


@cache
def _noise_store() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(2**20, np.float32)


def _some_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Take normal noise from a random place of a store, which takes less time than drawing it."""
    store, size = _noise_store(), math.prod(shape)
    start = int(rng.integers(max(1, len(store) - size)))
    return np.resize(store[start : start + size], shape)


def _upright(item: Shape, radius: float) -> Shape:
    """Return the shape with another size, and turned as at frame 0 for good."""
    return replace(item, radius=radius, spin=(item.spin[0], 0.0))
