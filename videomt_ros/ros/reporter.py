"""Publishes the diagnostics of the node, once a second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
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
        self.model_health = ModelHealth()
        """Durations of the stages of all images."""
        self._node = node
        self._override_errors = list(override_errors)
        self._health: dict[str, CameraHealth] = defaultdict(CameraHealth)
        self._diagnostics: dict[str, CameraDiagnostics] = {}
        self._throttle = Throttle(WARNING_PERIOD_S)
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def health_of(self, camera: str) -> CameraHealth:
        """Get the counts of a camera by its name."""
        return self._health[camera]

    def report(
        self,
        state: str,
        parameters: Parameters,
        cameras: Sequence[CameraStream],
        model: Mapping[str, str],
        fault: str,
    ) -> None:
        """Publish a status of each camera and one of the model.

        Args:
            state: state of the node's life cycle.
            parameters: values of all parameters.
            cameras: cameras of the node; empty unless it is configured.
            model: what is known of the model.
            fault: why the node left the active state by itself; empty if it did not.
        """
        troubles = self._override_errors + self._find_twins(cameras)
        # The full name, since segmenters in several namespaces have the same short name.
        node_name = self._node.get_fully_qualified_name()
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        present = {camera.name: camera for camera in cameras}
        for name in parameters.common.cameras or ('',):
            camera = present.get(name)
            is_paused = state == 'active' and camera is not None and not camera.is_enabled
            if name not in self._diagnostics:
                self._diagnostics[name] = CameraDiagnostics(self._health[name])
            status = self._diagnostics[name].to_msg(
                f'{node_name}: {name} frames'.replace(':  ', ': '),
                model.get('device', ''),
                'disabled' if is_paused else state,
                parameters.of_camera(name),
                troubles + (camera.troubles if camera is not None else []),
                None if camera is None else camera.silent_s,
            )
            array.status.append(status)
        title = f'{node_name}: model'
        array.status.append(
            model_status(
                title,
                self.model_health,
                state,
                model,
                parameters.common.error_stall_s,
                troubles,
                fault,
            )
        )
        self._publisher.publish(array)
        if any(camera.is_active for camera in cameras):
            lines = (f'{c.name}: {c.health.summary()}'.lstrip(': ') for c in cameras)
            logger = self._node.get_logger()
            logger.info('; '.join(lines), throttle_duration_sec=LOG_PERIOD_S)

    def _find_twins(self, cameras: Sequence[CameraStream]) -> list[str]:
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
        for camera in cameras:
            topic = node.resolve_topic_name(f'{camera.name}/segmentation/tracks'.lstrip('/'))
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
