"""One model on one camera: `VideoStream` and publishers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from videomt_ros.inference import VideoStream
from videomt_ros.ros.depth import DepthView
from videomt_ros.ros.health import CameraHealth, ModelHealth
from videomt_ros.ros.models import Model
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.publishers import LabelTopic, OutputTopics
from videomt_ros.structures import Segments


class ModelStream:
    """Segments the images of one camera with one model, and builds the messages of its outputs."""

    def __init__(
        self,
        node: LifecycleNode,
        camera: str,
        model: Model,
        parameters: NodeParameters,
        health: CameraHealth,
        model_health: ModelHealth,
    ) -> None:
        """Create the stream and its publishers.

        Args:
            node: provides the publishers.
            camera: name of the camera, which the topics begin with; empty for the only one.
            model: the model.
            parameters: the parameters of the camera.
            health: counts what becomes of the camera's images at this model.
            model_health: measures the stages of this model, over all cameras.
        """
        self.label = model.label
        """Label of the model; empty for the only one."""
        self.health = health
        """What becomes of the camera's images at this model."""
        self.model_health = model_health
        """Durations of the stages of the model."""
        config = model.engine.config
        self._class_names = config.class_names
        self.name = f'{camera} ({model.label})'.strip() if model.label else camera
        """Name of camera and model for the log; empty where both have none."""
        self.stream = VideoStream(
            model.engine,
            parameters.stream_task(),
            input_size=parameters.input_size or None,
            hold_outliers=True,
            name=self.name,
            **parameters.stream_settings(self._class_names),
        )
        """The stream, used by the worker's thread alone."""
        if health.processed:
            # The node was configured before: ids begin at 1 again, which consumers learn from the
            # number of resets, as after a reset that was asked for.
            self.stream.resets_by_reason.update(health.resets)
            self.stream.resets_by_reason['requested'] += 1
        prefix = (f'{camera}/' if camera else '') + model.prefix
        self._outputs = OutputTopics(node, prefix, config.name, config.warning)
        self._labels = LabelTopic(node, prefix, config.class_names)

    def update(self, parameters: NodeParameters) -> None:
        """Use other settings from the next image on; tracks and ids stay."""
        self.stream.update(**parameters.stream_settings(self._class_names))

    def publish_labels(self, parameters: NodeParameters) -> None:
        """Publish the names of the classes, where that is switched on."""
        if parameters.publish_label_info:
            is_semantic = self.stream.task == 'semantic'  # which has no threshold
            self._labels.publish(0.0 if is_semantic else parameters.score_threshold)

    def reads_depth(self, parameters: NodeParameters) -> bool:
        """Whether a topic that holds places is switched on and has a subscriber."""
        return self._outputs.reads_depth(parameters)

    def build(
        self,
        image: NDArray[np.uint8],
        header: Header,
        segments: Segments,
        parameters: NodeParameters,
        camera_info: CameraInfo | None,
        find_depth: Callable[[], DepthView | None],
    ) -> list[tuple[LifecyclePublisher, Any]]:
        """Build the messages that somebody listens to; see `OutputTopics.build`."""
        return self._outputs.build(image, header, segments, parameters, camera_info, find_depth)

    def note_result(self, segments: Segments, latency_ms: float) -> None:
        """Count a result that was published, this many milliseconds after its image came."""
        self.health.keep_tracks(
            [s.track_id for s in segments.segments], self.stream.resets_by_reason
        )
        if self.stream.state_norm is not None:
            self.health.keep_state_norm(self.stream.state_norm, self.stream.started_anew)
        self.health.count_processed(latency_ms)

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        self._outputs.destroy()
        self._labels.destroy()
