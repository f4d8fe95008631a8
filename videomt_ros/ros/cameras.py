"""The cameras of the node, which share the models and one inference thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice

from rclpy.lifecycle import LifecycleNode

from videomt_ros.engines.engine import Engine
from videomt_ros.inference import StartedFrames, start_together
from videomt_ros.ros.camera_stream import CameraStream, Frame, Received
from videomt_ros.ros.health import CameraHealth, ModelHealth
from videomt_ros.ros.models import Model
from videomt_ros.ros.outputs import missing_outputs
from videomt_ros.ros.parameters import Parameters
from videomt_ros.ros.worker import Worker

_MAX_DECODERS = 4
"""Largest number of threads that decode the images of one batch."""


@dataclass(frozen=True)
class _Round:
    """Images that the network was given together."""

    frames: list[Frame]
    started: StartedFrames

    def publish(self) -> None:
        """Wait for the results, and publish them."""
        results = iter(self.started.finish())
        for frame in self.frames:
            camera = frame.received.camera
            own = list(islice(results, len(camera.parts)))
            try:
                camera.finish(frame, own)
            except Exception as error:  # of this camera alone
                camera.fail(error)


class Cameras:
    """All cameras of the node.

    The inference thread takes the image that waits of each camera, at most `max_batch` of them,
    and each model processes those of one input size together. Models that share an encoder run it
    once for all. A camera is served again only
    after all others that have an image waiting, so that a fast one never delays a slow one by more
    than one round.

    With a pipeline the network is given images that wait before the results of those before are
    complete. Where none waits, these are completed at once.
    """

    def __init__(
        self,
        node: LifecycleNode,
        models: Sequence[Model],
        parameters: Parameters,
        health_of: Callable[[str, str], CameraHealth],
        model_health_of: Callable[[str], ModelHealth],
    ) -> None:
        """Create the streams and publishers of all cameras.

        Args:
            node: provides the clock, the logger and the life cycle.
            models: models of all cameras.
            parameters: values of all parameters; see `update`.
            health_of: finds the counts of a camera at a model, by its name and the model's label.
            model_health_of: finds the durations of the stages of a model by its label.
        """
        self._healths = [model_health_of(model.label) for model in models]
        self._max_batch = parameters.common.max_batch
        engines = [model.engine for model in models]
        idle = [engine for engine in engines if not gains_from_pipeline(engine)]
        self._is_pipelined = parameters.common.pipeline_depth > 1 and not idle
        if parameters.common.pipeline_depth > 1 and not self._is_pipelined:
            node.get_logger().info(
                f'pipeline_depth has no effect with the engine {idle[0].engine_name} on '
                f'{idle[0].device}: it is for networks that run on a GPU without the host.'
            )
        self._pending: _Round | None = None
        self._cameras = [
            CameraStream(
                node, name, models, parameters.of_camera(name), health_of, model_health_of
            )
            for name in parameters.common.cameras or ('',)
        ]
        self._worker: Worker[Received] | None = None
        self._decoders: ThreadPoolExecutor | None = None
        missing = missing_outputs(parameters.common)
        if missing:
            node.get_logger().info(
                f'Not offered, since vision_msgs is not installed: {", ".join(missing)}. Install '
                'ros-<distro>-vision-msgs, or switch them off.'
            )

    def __iter__(self) -> Iterator[CameraStream]:
        """Iterate over the cameras, in the order of the parameter `cameras`."""
        return iter(self._cameras)

    @property
    def is_active(self) -> bool:
        """Whether the images of any camera are processed."""
        return any(camera.is_active for camera in self)

    def activate(self) -> None:
        """Subscribe to all cameras, and process their images from now on."""
        if len(self._cameras) > 1:
            threads = min(len(self._cameras), _MAX_DECODERS)
            self._decoders = ThreadPoolExecutor(threads, thread_name_prefix='decode')
        self._worker = Worker(self._process, _fail, self._max_batch, name='inference')
        for camera in self:
            camera.activate(self._worker)

    def deactivate(self) -> None:
        """Unsubscribe; images that are being processed are still finished."""
        for camera in self:
            camera.deactivate()

    def wait(self, timeout_s: float | None = None) -> None:
        """End the inference thread, once it has finished the images that it processes.

        Args:
            timeout_s: longest time to wait; None: no limit.
        """
        if self._worker is not None:
            self._worker.stop(timeout_s)
        if self._decoders is not None:
            self._decoders.shutdown(wait=False)

    def destroy(self, timeout_s: float | None = None) -> None:
        """Deactivate, and remove the publishers from the node.

        Args:
            timeout_s: longest time to wait for images that are being processed; None: no limit.
                Those that take longer are not published.
        """
        self.deactivate()
        self.wait(timeout_s)
        for camera in self:
            camera.destroy()

    def update(self, parameters: Parameters) -> None:
        """Use other parameters from the next images on; tracks and ids stay."""
        for camera in self:
            camera.update(parameters.of_camera(camera.name))

    def _begin(self, batch: list[Received]) -> list[Frame]:
        """Make images ready for the network; those that are not to be processed are left out.

        They are decoded side by side, since OpenCV lets other threads run meanwhile.
        """
        found: Iterator[Frame | None]
        if self._decoders is None or len(batch) == 1:
            found = map(_begin, batch)
        else:
            found = self._decoders.map(_begin, batch)
        return [frame for frame in found if frame is not None]

    def _process(self, batch: list[Received]) -> bool:
        """Process and publish one image each of some cameras; runs in the worker's thread.

        Returns:
            Whether results are pending, which the next call publishes.
        """
        for health in self._healths:
            health.begin_batch(len(batch))
        try:
            started = self._start(batch) if batch else None
            if self._is_pipelined:  # the round before is finished while the network runs
                started, self._pending = self._pending, started
            if started is not None:
                started.publish()
        finally:
            for health in self._healths:
                health.end_batch()
        return self._pending is not None

    def _start(self, batch: list[Received]) -> _Round:
        """Give images to the network."""
        frames = self._begin(batch)
        started = start_together([part for frame in frames for part in frame.for_streams()])
        places = count()
        for frame in frames:
            camera = frame.received.camera
            errors = [started.errors.get(place) for place in islice(places, len(camera.parts))]
            camera.note_start(frame, errors)
        return _Round(frames, started)


def _begin(received: Received) -> Frame | None:
    """Make an image ready for the network; None if it is not to be processed."""
    try:
        return received.camera.begin(received)
    except Exception as error:  # of this camera alone
        received.camera.fail(error)
        return None


def _fail(batch: list[Received], error: Exception) -> None:
    for received in batch:
        received.camera.fail(error)


def gains_from_pipeline(net: Engine) -> bool:
    """Whether the host can work on results while the network runs.

    On a CPU it is the host that runs the network, and onnxruntime waits for a GPU in each step.
    """
    return net.device.type != 'cpu' and net.engine_name != 'onnxruntime'
