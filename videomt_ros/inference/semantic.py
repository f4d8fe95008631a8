"""Semantic segmentation of a stream: one segment per class in view, without tracks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from videomt_ros.inference import postprocess
from videomt_ros.inference.identities import Identity, Lifecycle, Sight
from videomt_ros.inference.pending import Labelling
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.tensor_contest import semantic_winners
from videomt_ros.inference.transfer import Download, Ready
from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.network import Outputs


class ClassSegments:
    """The classes that one stream shows. In each frame, run through `label`.

    A class is confirmed in the first frame that shows it, and its id is its class id + 1.
    """

    def __init__(self, config: NetworkConfig, settings: StreamSettings) -> None:
        """Start with no class in view.

        Args:
            config: configuration of the network.
            settings: settings of the stream. The thresholds and confirm_frames have no effect.
        """
        self._num_classes = config.num_classes
        self._identities: dict[int, Identity] = {}
        self._life = Lifecycle(config, settings)
        self.update(settings)

    @property
    def is_empty(self) -> bool:
        """Whether no class is in view or was within the last `gap_s` seconds."""
        return not self._identities

    @property
    def next_id(self) -> int:
        """Smallest id, at which every video begins: ids are those of the classes."""
        return 1

    def update(self, settings: StreamSettings) -> None:
        """Use other settings from now on."""
        self._life.settings = dataclasses.replace(settings, confirm_frames=1)

    def label(self, outputs: Outputs, geometry: Geometry, now_ns: int) -> Labelling:
        """Label every pixel of a frame; see `TrackSegments.label`.

        Returns:
            Id of each pixel, (H, W), 0 where its class is not published; and the segments, by
            falling score.
        """
        life = self._life
        class_logits, mask_logits = outputs.class_logits[0], outputs.mask_logits[0]
        if postprocess.is_on_host(mask_logits):
            yield Ready()
            classes, shares = postprocess.semantic_pixels(class_logits, mask_logits, geometry)
        else:
            class_probs = class_logits.float().softmax(-1)[:, :-1]
            pixels = Download(*semantic_winners(class_probs, mask_logits, geometry))
            yield pixels
            classes, shares = pixels.wait()
        life.begin(now_ns)
        self._keep_only(life.is_alive)
        sums = np.bincount(classes.ravel(), weights=shares.ravel(), minlength=self._num_classes)
        sights: dict[Identity, Sight] = {}
        for class_id, region in enumerate(postprocess.regions(classes + 1, self._num_classes)):
            if region is None:
                continue
            area, box = region
            identity = self._identities.setdefault(class_id, Identity(life.frame, class_id + 1))
            if area >= life.min_area and life.is_drawn(identity, class_id):
                sights[identity] = Sight(class_id, float(sums[class_id] / area), area, box)
        life.settle(self._identities.values(), sights)
        self._keep_only(lambda identity: identity.seen or identity.confirmed)
        values = np.zeros(self._num_classes, np.uint16)
        for class_id, identity in self._identities.items():
            values[class_id] = identity.pixel_value
        return values[classes], life.segments(self._identities.values())

    def _keep_only(self, condition: Callable[[Identity], bool]) -> None:
        self._identities = {k: i for k, i in self._identities.items() if condition(i)}
