"""Instance and panoptic results: the outputs of a frame become pixels of tracks.

Letters: Q queries, K classes, h w mask grid, H W image size in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference import postprocess
from videomt_ros.inference.association import build_detections, class_scores, softmax
from videomt_ros.inference.identities import Sight
from videomt_ros.inference.instance_contest import bound_masks
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.specks import drop_specks
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.tracker import Match, Tracker
from videomt_ros.model.config import Task, VidEoMTConfig
from videomt_ros.structures import Segment


class TrackSegments:
    """Labels the pixels of one video with the ids of its tracks.

    Use: `begin`, then `label`, once per frame.
    """

    def __init__(
        self, config: VidEoMTConfig, task: Task, settings: StreamSettings, next_id: int
    ) -> None:
        """Start without tracks.

        Args:
            config: configuration of the network.
            task: instance or panoptic.
            settings: settings of the stream.
            next_id: id of the first new track.
        """
        self._task = task
        self._thing_classes = config.thing_classes
        self._settings = settings
        self.tracker = Tracker(config, task, settings, next_id=next_id)
        """Tracks of the video so far."""

    @property
    def next_id(self) -> int:
        """Id that the next new track gets."""
        return self.tracker.next_id

    def update(self, settings: StreamSettings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self.tracker.update(settings)

    def begin(self, stamp_ns: int) -> None:
        """Start a frame, and end the tracks that were not seen for too long."""
        self.tracker.begin(stamp_ns)

    def label(
        self, class_logits: Tensor, mask_logits: Tensor, geometry: Geometry
    ) -> tuple[NDArray[np.uint16], tuple[Segment, ...]]:
        """Label the pixels, and finish the frame.

        Args:
            class_logits: (Q, K + 1).
            mask_logits: (Q, h, w).
            geometry: sizes of the frame.

        Returns:
            Track id of each pixel, (H, W), 0 for none; and the segments.
        """
        settings, tracker = self._settings, self.tracker
        grid = (mask_logits.shape[1], mask_logits.shape[2])
        rows, columns = geometry.grid_inside(grid)
        inside = mask_logits[:, :rows, :columns]
        logits = postprocess.read_classes(class_logits)
        scores = class_scores(softmax(logits), self._task)
        is_candidate = scores >= settings.score_threshold
        is_candidate[tracker.owned_queries()] = True
        # Half precision may overflow to NaN.
        queries = np.flatnonzero(is_candidate & np.isfinite(logits).all(1))
        masks = postprocess.read_masks(inside, queries, settings.mask_threshold)
        is_present = masks.any((1, 2))
        queries, masks = queries[is_present], masks[is_present]
        detections = build_detections(
            queries, logits[queries], scores[queries], masks, geometry.pixels_per_cell(grid)
        )
        matches = tracker.match(detections)
        pixels = self._winners(mask_logits, matches, geometry)
        chosen = masks[np.searchsorted(queries, [match.query for match in matches])]
        bounds = bound_masks(chosen, geometry, grid)
        regions = postprocess.regions(pixels, len(matches), bounds)
        if settings.speck_share:
            are_things = [self._thing_classes[match.class_id] for match in matches]
            regions = drop_specks(pixels, regions, are_things, settings.speck_share)
        segments = tracker.settle(
            {
                match: Sight(match.class_id, match.score, *region)
                for match, region in zip(matches, regions, strict=True)
                if region is not None
            }
        )
        values = np.array([0, *(match.identity.pixel_value for match in matches)], np.uint16)
        return postprocess.look_up(values, pixels), segments

    def _winners(
        self, mask_logits: Tensor, matches: list[Match], geometry: Geometry
    ) -> postprocess.Numbers:
        """Assign each pixel to the match that wins it.

        Returns:
            (H, W); k + 1 for match k, 0 for none.
        """
        if not matches:
            return np.zeros(geometry.image_size, np.uint8)
        queries = [match.query for match in matches]
        chosen = mask_logits[torch.tensor(queries, device=mask_logits.device)]
        scores = np.array([match.score for match in matches])
        threshold = self._settings.mask_threshold
        if self._task == 'instance':
            return postprocess.instance_pixels(chosen, scores, geometry, threshold)
        return postprocess.panoptic_pixels(
            chosen, scores, geometry, threshold, self._settings.overlap_threshold
        )
