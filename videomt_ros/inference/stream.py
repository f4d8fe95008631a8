"""VideoStream: one camera, one state; images go in, segments with lasting ids come out.

    stream = VideoStream(load_model('demo'))
    for image, stamp_ns in camera:
        segments = stream.push(image, stamp_ns)

Any number of streams share one network: what a stream remembers lies in the stream.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from videomt_ros.inference import postprocess
from videomt_ros.inference.association import build_detections, softmax
from videomt_ros.inference.identities import Identity, Sight
from videomt_ros.inference.preprocess import Geometry, Preprocessor
from videomt_ros.inference.settings import StreamSettings
from videomt_ros.inference.timing import StageClock, StageTimes
from videomt_ros.inference.track import Track
from videomt_ros.inference.tracker import Tracker
from videomt_ros.model.config import Task
from videomt_ros.model.network import Outputs, VidEoMT
from videomt_ros.structures import Segment, Segments, TrackState


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One segment that competes for pixels."""

    identity: Identity
    class_id: int
    score: float
    track: Track | None = None
    """None in semantic results, which have no tracks."""


STEP_BACK_S = 0.2
"""Largest step back of the stamps, in seconds, that is no other video: jitter, frames out of
order, two publishers on one topic."""
STALE_STATE_S = 5.0
"""Least pause between two frames, in seconds, after which the network's state is of a view that
is gone."""

_logger = logging.getLogger(__name__)


class VideoStream:
    """Segments and tracks one video, frame by frame; each result depends on the past alone.

    - instance: objects, none of them twice; other pixels are 0.
    - panoptic: objects, and stuff with one segment and one id per class.
    - semantic: one segment per class in view, confirmed at once, with track id = class id + 1.
      The class probabilities are those of the frame; every pixel is labelled (before min_area
      and class_filter).
    """

    def __init__(self, net: VidEoMT, task: Task | None = None, **settings: Any) -> None:
        """Start a stream.

        Args:
            net: in evaluation mode; its device and number type are those of the stream. Call
                `reset` after moving it.
            task: what to make of the network's outputs; None: what it was trained for.
            settings: fields of StreamSettings that differ from the defaults.

        Raises:
            ValueError: an unknown task, or a setting that is unknown or out of range.
        """
        self.net = net
        self.task = net.config.task if task is None else task
        if self.task not in get_args(Task):
            raise ValueError(
                f'Expected a task from {", ".join(get_args(Task))}, got {self.task!r}.'
            )
        self.settings = StreamSettings()
        self.update(**settings)
        self.reset()

    def update(self, **settings: Any) -> None:
        """Change settings while running; tracks and ids stay.

        Args:
            settings: fields of StreamSettings; those not named keep their value.

        Raises:
            ValueError: a setting is unknown or out of range; nothing was changed.
        """
        known = [item.name for item in dataclasses.fields(StreamSettings)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(
                f'Unknown settings: {", ".join(unknown)}. Expected some of: {", ".join(known)}.'
            )
        changed = dataclasses.replace(self.settings, **settings)
        names = self.net.config.class_names
        missing = [name for name in changed.class_filter if name not in names]
        if missing:
            raise ValueError(
                f'The model has no class {", ".join(missing)}. It knows: {", ".join(names)}.'
            )
        self.settings = changed
        wanted = [not changed.class_filter or name in changed.class_filter for name in names]
        self._wanted = np.array(wanted, bool)

    def reset(self) -> None:
        """Forget the video: the stream is as new, and ids start at 1 again."""
        config = self.net.config
        weight = next(self.net.parameters())
        self._prepare = Preprocessor(config, weight.device, weight.dtype)
        merged = {
            k
            for k, is_thing in enumerate(config.thing_classes)
            if self.task == 'semantic' or (self.task == 'panoptic' and not is_thing)
        }
        self._tracker = Tracker(config.num_queries, merged)
        self._state: Tensor | None = None
        self._state_was_finite = True
        self._stamp_ns: int | None = None
        self._image_size: tuple[int, int] | None = None
        self.outputs: Outputs | None = None
        """Raw outputs of the newest frame, (1, Q, ...) on the network's device."""
        self.next_state: Tensor | None = None
        """What the newest frame left for the next one, (1, Q, C), finite or not."""
        self.started_anew = True
        """Whether the network took the newest frame as the first of a video."""
        self.times: StageTimes | None = None
        """How long the newest frame took."""

    @torch.inference_mode()
    def push(self, image: NDArray[np.uint8], stamp_ns: int) -> Segments:
        """Take the next frame.

        A stamp more than STEP_BACK_S earlier than the latest, or another image size, means
        another video: the stream resets itself and says so in the log. A smaller step back counts
        as an equal stamp, and equal stamps are frames at one time.

        The network starts anew from its first state, without a reset of the ids, after a pause
        longer than both gap_s and STALE_STATE_S that ended all tracks, and after a frame that
        left numbers in the state that are not finite.

        Args:
            image: RGB, (H, W, 3) uint8; any strides, need not be writeable.
            stamp_ns: when the image was taken, in nanoseconds of any clock.

        Returns:
            What is seen, in pixels of the image, with the stamp as given.

        Raises:
            ValueError: not such an image; the stream goes on as if it had not been pushed.
        """
        clock = StageClock(self._prepare.device)
        frame, geometry = self._prepare(image)
        clock.mark()
        self._reset_for_new_video(geometry, stamp_ns)
        before_ns = stamp_ns if self._stamp_ns is None else self._stamp_ns
        now_ns = max(stamp_ns, before_ns)
        self._stamp_ns, self._image_size = now_ns, geometry.image_size
        self._tracker.begin(now_ns, self.settings.gap_s)
        pause_s = (now_ns - before_ns) * 1e-9
        is_stale = pause_s > max(STALE_STATE_S, self.settings.gap_s)
        is_lost = is_stale and not self._tracker.identities()
        self.started_anew = self._state is None or is_lost
        if self._state is None or is_lost:
            self._state = self.net.initial_state(1)
        self.outputs, self._state = self.net.step(frame, self._state)
        self.next_state = self._state
        clock.mark()
        class_logits, mask_logits = self.outputs.class_logits[0], self.outputs.mask_logits[0]
        if self.task == 'semantic':
            pixels, drawn = self._label(class_logits, mask_logits, geometry)
        else:
            pixels, drawn = self._track(class_logits, mask_logits, geometry)
        segments = self._publish(pixels, drawn, stamp_ns)
        self.times = clock.times()
        return segments

    def _reset_for_new_video(self, geometry: Geometry, stamp_ns: int) -> None:
        if self._stamp_ns is None:
            return
        if (self._stamp_ns - stamp_ns) * 1e-9 > STEP_BACK_S:
            _logger.warning(
                'Stamp went back by %.3f s, from %d to %d ns: the stream starts anew.',
                (self._stamp_ns - stamp_ns) * 1e-9,
                self._stamp_ns,
                stamp_ns,
            )
            self.reset()
        elif geometry.image_size != self._image_size:
            _logger.warning(
                'Image size changed from %s to %s: the stream starts anew.',
                self._image_size,
                geometry.image_size,
            )
            self.reset()

    def _check_state(self, is_finite: bool) -> None:
        """Drop a state that would carry its infinities and NaNs into all frames to come."""
        if not is_finite:
            self._state = None
            if self._state_was_finite:  # not in each frame of a network that always overflows
                _logger.warning(
                    'The state of the network is not finite: it starts anew, and the tracks stay. '
                    'If this comes again, use another precision.'
                )
        self._state_was_finite = is_finite

    def _track(
        self, class_logits: Tensor, mask_logits: Tensor, geometry: Geometry
    ) -> tuple[NDArray[np.int16], list[Drawn]]:
        """Instance and panoptic: the winning segment per pixel, and whose each segment is."""
        settings, tracker = self.settings, self._tracker
        rows, columns = geometry.grid_inside((mask_logits.shape[1], mask_logits.shape[2]))
        inside = mask_logits[:, :rows, :columns]
        assert self._state is not None
        logits, present, is_finite = postprocess.read_queries(
            class_logits, inside, self._state, settings.mask_threshold
        )
        self._check_state(is_finite)
        scores = self._scores(softmax(logits))
        able = scores >= settings.score_threshold
        able[tracker.owned_queries()] = True
        # Logits that are no numbers, as half precision may give, are no candidates either.
        able &= present & np.isfinite(logits).all(1)
        queries = np.flatnonzero(able)
        masks = postprocess.read_masks(inside, queries, settings.mask_threshold)
        detections = build_detections(queries, logits[queries], scores[queries], masks)
        matches = tracker.match(detections, settings.score_threshold, settings.confirm_frames)

        drawn: list[Drawn] = []
        queries_drawn: list[int] = []
        sights: dict[Identity, Sight] = {}
        seen: set[Track] = set()
        cell = geometry.pixels_per_cell((mask_logits.shape[1], mask_logits.shape[2]))
        for track, n in matches:
            identity, class_id = tracker.identity(track), track.class_id
            score = float(self._scores(track.probs[None])[0])
            if score < settings.score_threshold:
                continue
            if self._is_drawn(identity, class_id):
                drawn.append(Drawn(identity, class_id, score, track))
                queries_drawn.append(int(detections.queries[n]))
            elif detections.sizes[n] ** 2 * cell >= max(1, settings.min_area):
                seen.add(track)
                sights[identity] = Sight(class_id, score)
        pixels = self._winners(mask_logits, queries_drawn, drawn, geometry)
        visible = self._visible(pixels, drawn)
        sights.update(visible)
        seen.update(item.track for item in drawn if item.track and item.identity in visible)
        tracker.settle(sights, seen, settings.confirm_frames)
        return pixels, drawn

    def _label(
        self, class_logits: Tensor, mask_logits: Tensor, geometry: Geometry
    ) -> tuple[NDArray[np.int16], list[Drawn]]:
        """Semantic: as `_track`, with one segment per class."""
        assert self._state is not None
        classes, shares = postprocess.semantic_pixels(class_logits, mask_logits, geometry)
        # The device is done by now, so that one more byte is not worth a place in those arrays.
        self._check_state(bool(torch.isfinite(self._state).all().cpu().numpy()))
        num_classes = self.net.config.num_classes
        areas = np.bincount(classes.ravel(), minlength=num_classes)
        sums = np.bincount(classes.ravel(), weights=shares.ravel(), minlength=num_classes)
        drawn = []
        numbers = np.zeros(num_classes, np.int16)
        for class_id in map(int, np.flatnonzero(areas)):
            identity = self._tracker.merged_identity(class_id)
            identity.track_id = class_id + 1
            if self._is_drawn(identity, class_id):
                drawn.append(Drawn(identity, class_id, float(sums[class_id] / areas[class_id])))
                numbers[class_id] = len(drawn)
        pixels = numbers[classes]
        self._tracker.settle(self._visible(pixels, drawn), set(), self._confirm_frames)
        return pixels, drawn

    @property
    def _confirm_frames(self) -> int:
        return 1 if self.task == 'semantic' else self.settings.confirm_frames

    def _scores(self, probs: NDArray[np.floating]) -> NDArray[np.floating]:
        """Score (N,) of class probabilities (N, K + 1)."""
        scores = probs[:, :-1].max(1)
        if self.task == 'panoptic':
            # The published rule drops a query whose likeliest class is no object.
            scores = np.where(probs[:, -1] > scores, 0.0, scores)
        return scores

    def _is_drawn(self, identity: Identity, class_id: int) -> bool:
        """True if the identity is to be published once it is seen in this frame."""
        confirmed = self._tracker.will_be_confirmed(identity, self._confirm_frames)
        state = 'confirmed' if confirmed else 'tentative'
        return bool(self._wanted[class_id]) and state in self.settings.track_states

    def _winners(
        self, mask_logits: Tensor, queries: list[int], drawn: list[Drawn], geometry: Geometry
    ) -> NDArray[np.int16]:
        """(H, W); k + 1 where segment k of those drawn is, 0 for none."""
        if not drawn:
            return np.zeros(geometry.image_size, np.int16)
        chosen = mask_logits[torch.tensor(queries, device=mask_logits.device)]
        scores = np.array([item.score for item in drawn])
        threshold = self.settings.mask_threshold
        if self.task == 'instance':
            return postprocess.instance_pixels(chosen, scores, geometry, threshold)
        return postprocess.panoptic_pixels(
            chosen, scores, geometry, threshold, self.settings.overlap_threshold
        )

    def _visible(self, pixels: NDArray[np.int16], drawn: list[Drawn]) -> dict[Identity, Sight]:
        """Identities with enough pixels; the segments of one identity count together."""
        areas = np.bincount(pixels.ravel(), minlength=len(drawn) + 1)[1:]
        boxes = ndimage.find_objects(pixels, max_label=len(drawn)) if drawn else []
        sights: dict[Identity, Sight] = {}
        for item, area, slices in zip(drawn, areas, boxes, strict=True):
            if slices is None:
                continue
            rows, columns = slices
            box = (columns.start, rows.start, columns.stop, rows.stop)
            sight = Sight(item.class_id, item.score, int(area), box)
            if item.identity in sights:
                sight = sight.joined(sights[item.identity])
            sights[item.identity] = sight
        enough = max(1, self.settings.min_area)
        return {identity: sight for identity, sight in sights.items() if sight.area >= enough}

    def _publish(self, pixels: NDArray[np.int16], drawn: list[Drawn], stamp_ns: int) -> Segments:
        """Turn numbers of drawn segments into track ids, and list what there is."""
        config = self.net.config
        table = np.zeros(len(drawn) + 1, np.uint16)
        for k, item in enumerate(drawn):
            if item.identity.area:
                assert item.identity.track_id is not None
                table[k + 1] = item.identity.track_id
        segments = []
        for identity in self._tracker.identities():
            lost = identity.state is TrackState.LOST
            listed = lost and 'lost' in self.settings.track_states
            listed = bool(listed and self._wanted[identity.class_id])
            if identity.track_id is None or identity.box is None:
                continue
            if not identity.area and not listed:
                continue
            segments.append(
                Segment(
                    track_id=identity.track_id,
                    class_id=identity.class_id,
                    class_name=config.class_names[identity.class_id],
                    is_thing=config.thing_classes[identity.class_id],
                    score=min(1.0, identity.score),
                    state=identity.state,
                    age=self._tracker.age(identity),
                    last_seen_ns=identity.last_seen_ns,
                    box=identity.box,
                    area=identity.area,
                )
            )
        segments.sort(key=lambda segment: (-segment.score, segment.track_id))
        return Segments(stamp_ns, table[pixels], tuple(segments), config.num_classes)
