"""Publishes the diagnostics of the node, once a second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from videomt_ros.ros.diagnostics import CameraDiagnostics, model_status
from videomt_ros.ros.health import CameraHealth, ModelHealth
from videomt_ros.ros.logs import Throttle
from videomt_ros.ros.parameters import Parameters
from videomt_ros.ros.sources import publisher_name
from videomt_ros.ros.subscription import WARNING_PERIOD_S

if TYPE_CHECKING:
    from videomt_ros.ros.camera_stream import CameraStream

LOG_PERIOD_S = 30.0
"""Time in seconds between two lines on the cameras in the log."""


class Reporter:
    """Keeps the counts of the node, over all of its configurations, and reports them."""

    def __init__(self, node: Node, override_errors: Sequence[str]) -> None:
        """Offer `/diagnostics`.

        Args:
            node: node to report on.
            override_errors: what is wrong with the parameters that were given at its start.
        """
        self._node = node
        self._override_errors = list(override_errors)
        self._health: dict[tuple[str, str], CameraHealth] = defaultdict(CameraHealth)
        self._model_health: dict[str, ModelHealth] = defaultdict(ModelHealth)
        self._diagnostics: dict[tuple[str, str], CameraDiagnostics] = {}
        self._throttle = Throttle(WARNING_PERIOD_S)
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def health_of(self, camera: str, model: str) -> CameraHealth:
        """Get the counts of a camera by its name, at a model by its label."""
        return self._health[camera, model]

    def model_health_of(self, model: str) -> ModelHealth:
        """Get the durations of the stages of all images at a model, by its label."""
        return self._model_health[model]

    def report(
        self,
        state: str,
        parameters: Parameters,
        cameras: Sequence[CameraStream],
        models: Mapping[str, Mapping[str, str]],
        fault: str,
    ) -> None:
        """Publish a status of each camera at each model, and one of each model.

        Args:
            state: state of the node's life cycle.
            parameters: values of all parameters.
            cameras: cameras of the node; empty unless it is configured.
            models: what is known of each model, by its label.
            fault: why the node left the active state by itself; empty if it did not.
        """
        troubles = self._override_errors + self._find_twins(cameras, list(models))
        # The full name, since segmenters in several namespaces have the same short name.
        node_name = self._node.get_fully_qualified_name()
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        present = {camera.name: camera for camera in cameras}
        for name in parameters.common.cameras or ('',):
            camera = present.get(name)
            is_paused = state == 'active' and camera is not None and not camera.is_enabled
            for label, model in models.items():
                if (name, label) not in self._diagnostics:
                    health = self._health[name, label]
                    self._diagnostics[name, label] = CameraDiagnostics(health)
                status = self._diagnostics[name, label].to_msg(
                    _title(node_name, name, label, 'frames'),
                    model.get('device', ''),
                    'disabled' if is_paused else state,
                    parameters.of_camera(name),
                    troubles + (camera.troubles if camera is not None else []),
                    None if camera is None else camera.silent_s,
                )
                array.status.append(status)
        for label, model in models.items():
            array.status.append(
                model_status(
                    _title(node_name, label, 'model'),
                    self._model_health[label],
                    state,
                    model,
                    parameters.common.error_stall_s,
                    troubles,
                    fault,
                )
            )
        self._publisher.publish(array)
        if any(camera.is_active for camera in cameras):
            lines = (
                f'{part.name}: {part.health.summary()}'.lstrip(': ')
                for camera in cameras
                for part in camera.parts
            )
            logger = self._node.get_logger()
            logger.info('; '.join(lines), throttle_duration_sec=LOG_PERIOD_S)

    def _find_twins(self, cameras: Sequence[CameraStream], models: Sequence[str]) -> list[str]:
        """Look for another node of this name, and for others that publish the same outputs."""
        node, troubles = self._node, []
        name = node.get_fully_qualified_name()
        own = (node.get_name(), node.get_namespace())
        namesakes = node.get_node_names_and_namespaces().count(own)
        if namesakes > 1:
            troubles.append(
                f'{namesakes} nodes are named {name}: their services and results mix. Give each a '
                'name or namespace of its own. (A node that was killed is listed for 20 s or so.)'
            )
        for camera, model in product(cameras, models):
            words = (camera.name, model, 'segmentation/tracks')
            topic = node.resolve_topic_name('/'.join(filter(None, words)))
            names = {publisher_name(info) for info in node.get_publishers_info_by_topic(topic)}
            others = sorted(names - {name})
            if others:
                troubles.append(
                    f'{", ".join(others)} publishes {topic} too. Give each node a namespace of '
                    'its own.'
                )
        for trouble in troubles:
            if self._throttle.allows(trouble):
                node.get_logger().warning(trouble)
        return troubles


def _title(node: str, *words: str) -> str:
    """Write the name of a status, as `/segmenter: front panoptic frames`."""
    return f'{node}: {" ".join(filter(None, words))}'
