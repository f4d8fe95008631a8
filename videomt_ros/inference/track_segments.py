"""Instance and panoptic results: the outputs of a frame become pixels of tracks.

Letters: Q queries, K classes, h w mask grid, H W image size in pixels.
"""

from __future__ import annotations

import numpy as np
import torch

from videomt_ros.inference import postprocess
from videomt_ros.inference.association import build_detections, class_scores, softmax
from videomt_ros.inference.identities import Sight
from videomt_ros.inference.instance_contest import bound_masks
from videomt_ros.inference.pending import Labelling
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.readback import DeviceReadback, HostReadback, start_readback
from videomt_ros.inference.specks import drop_specks
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.tensor_contest import (
    drop_covered,
    instance_winners,
    panoptic_winners,
)
from videomt_ros.inference.tracker import Match, Tracker
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.inference.transfer import Arrays, Download, Ready, side_stream, upload
from videomt_ros.model.config import NetworkConfig, Task
from videomt_ros.model.network import Outputs


class TrackSegments:
    """Labels the pixels of one video with the ids of its tracks.

    In each frame, run through `label`.
    """

    def __init__(
        self,
        config: NetworkConfig,
        task: Task,
        settings: StreamSettings,
        next_id: int,
        constants: TrackerConstants,
    ) -> None:
        """Start without tracks.

        Args:
            config: configuration of the network.
            task: instance or panoptic.
            settings: settings of the stream.
            next_id: id of the first new track.
            constants: constants of the tracker.
        """
        self._task = task
        self._thing_classes = config.thing_classes
        self._settings = settings
        self.tracker = Tracker(config, task, settings, next_id=next_id, constants=constants)
        """Tracks of the video so far."""

    @property
    def next_id(self) -> int:
        """Id that the next new track gets."""
        return self.tracker.next_id

    def update(self, settings: StreamSettings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self.tracker.update(settings)

    def label(self, outputs: Outputs, geometry: Geometry, now_ns: int) -> Labelling:
        """Label the pixels of a frame; the frames before it must be finished at the first yield.

        Args:
            outputs: outputs of the network for the frame, (1, Q, ...).
            geometry: sizes of the frame.
            now_ns: time of the video, in nanoseconds.

        Yields:
            What the host is to wait for before it goes on.

        Returns:
            Track id of each pixel, (H, W), 0 for none; and the segments.
        """
        settings, tracker = self._settings, self.tracker
        mask_logits = outputs.mask_logits[0]
        grid = (mask_logits.shape[1], mask_logits.shape[2])
        readback = start_readback(
            outputs.class_logits[0],
            mask_logits,
            geometry.grid_inside(grid),
            settings.mask_threshold,
        )
        yield readback
        tracker.begin(now_ns)
        logits = readback.class_logits()
        scores = class_scores(softmax(logits), self._task)
        is_candidate = scores >= settings.score_threshold
        is_candidate[tracker.owned_queries()] = True
        # Half precision may overflow to NaN.
        queries = np.flatnonzero(is_candidate & np.isfinite(logits).all(1))
        masks = readback.masks(queries)
        is_present = masks.any((1, 2))
        queries, masks = queries[is_present], masks[is_present]
        detections = build_detections(
            queries, logits[queries], scores[queries], masks, geometry.pixels_per_cell(grid)
        )
        matches = tracker.match(detections)
        contest = self._start_contest(outputs, matches, geometry, readback)
        grid_masks = dict(zip(detections.queries.tolist(), detections.masks, strict=True))
        bounds = bound_masks([grid_masks[match.query].box for match in matches], geometry, grid)
        yield contest
        pixels, *embeddings = contest.wait()
        regions = postprocess.regions(pixels, len(matches), bounds)
        if settings.speck_share:
            are_things = [self._thing_classes[match.class_id] for match in matches]
            regions = drop_specks(pixels, regions, are_things, settings.speck_share)
        segments = tracker.settle(
            {
                match: Sight(match.class_id, match.score, *region)
                for match, region in zip(matches, regions, strict=True)
                if region is not None
            },
            *embeddings,
        )
        values = np.array([0, *(match.identity.pixel_value for match in matches)], np.uint16)
        return postprocess.look_up(values, pixels, regions), segments

    def _start_contest(
        self,
        outputs: Outputs,
        matches: list[Match],
        geometry: Geometry,
        readback: HostReadback | DeviceReadback,
    ) -> Arrays:
        """Start to assign each pixel to the match that wins it.

        Returns:
            (H, W); k + 1 for match k, 0 for none. If the tracker remembers looks, also the
            embeddings of its observed queries, (N, C) float32.
        """
        mask_logits, embeddings = outputs.mask_logits[0], outputs.embeddings[0]
        observed, with_looks = self.tracker.observed_queries(), self.tracker.remembers
        queries = observed[: len(matches)]
        scores = np.array([match.score for match in matches])
        settings, is_instance = self._settings, self._task == 'instance'
        is_finite, device = readback.is_finite(queries), mask_logits.device
        if isinstance(readback, HostReadback):
            masks, threshold = readback.logits(queries), settings.mask_threshold
            if is_instance:
                pixels = postprocess.instance_pixels(masks, scores, geometry, threshold, is_finite)
            else:
                overlap = settings.overlap_threshold
                pixels = postprocess.panoptic_pixels(
                    masks, scores, geometry, threshold, overlap, is_finite
                )
            looks = [embeddings[torch.from_numpy(observed)].float().numpy()] * with_looks
            return Ready(pixels, *looks)
        side = side_stream(device, 'result')
        with side.active():
            side.borrow(mask_logits)
            side.borrow(embeddings)
            packed = upload(np.concatenate([observed, scores]).astype(np.float32), device)
            numbers, weights = packed[: len(observed)].long(), packed[len(observed) :]
            chosen = mask_logits[numbers[: len(matches)]]
            case = (chosen, weights, geometry, settings.mask_threshold, is_finite)
            if is_instance:
                won = instance_winners(*case)
            else:
                won = drop_covered(*panoptic_winners(*case), settings.overlap_threshold)
            return Download(won, *[embeddings[numbers].float()] * with_looks)
