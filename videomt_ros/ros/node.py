"""The segmenter: images in, tracks and label images out, as a lifecycle node.

    unconfigured -- configure: load the model -- inactive -- activate: subscribe -- active
    unconfigured <- cleanup: free the model --- inactive <- deactivate: unsubscribe - active

The node only connects its parts. Its callbacks are short, and inference runs in the thread of
`Cameras`, so that services, parameters and transitions answer while the network computes. The
modules that import torch, which takes seconds, are imported by the first configure, in a thread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.service import Service
from std_srvs.srv import SetBool, Trigger

from videomt_ros.errors import command_text
from videomt_ros.inference.continuity import STEP_BACK_NS
from videomt_ros.ros.declaration import (
    changed_parameters,
    declare_parameters,
    follow_changes,
)
from videomt_ros.ros.guards import guard_services
from videomt_ros.ros.logs import RosHandler, Throttle
from videomt_ros.ros.memory import return_memory
from videomt_ros.ros.overrides import check_overrides
from videomt_ros.ros.reporter import Reporter
from videomt_ros.ros.transitions import Cancelled, Transitions

if TYPE_CHECKING:
    from videomt_ros.ros.camera_stream import CameraStream
    from videomt_ros.ros.cameras import Cameras
    from videomt_ros.ros.models import Model

REPORT_PERIOD_S = 1.0
"""Period of the diagnostics, in seconds."""
CLOSE_TIMEOUT_S = 3.0
"""Longest time, in seconds, that the end of the process waits for the image that is being
processed. A launch file kills a process that takes five."""


class SegmenterNode(LifecycleNode):
    """Segments and tracks what one camera or several cameras see."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """Declare the parameters; with `autostart`, the node activates itself when it spins.

        Args:
            arguments: the command line that rclpy was initialised with, in which parameters for
                other nodes are looked for.

        Raises:
            ValueError: a parameter's initial value is wrong.
            rclpy.exceptions.ParameterException: the same, if rclpy itself found it.
        """
        super().__init__('segmenter')
        self._throttle = Throttle()
        self._log_handler = RosHandler(self.get_logger())
        logging.getLogger('videomt_ros').addHandler(self._log_handler)
        logging.getLogger('videomt_ros').setLevel(logging.DEBUG)  # the ROS logger filters
        self.has_failed = False
        """Whether the process is to end with an error, which the log has."""
        self._settings = declare_parameters(self)
        self._override_errors, warnings = check_overrides(self, arguments)
        for warning in warnings:
            self.get_logger().warning(warning)
        # As JSON, which is YAML too.
        self.get_logger().info(f'Parameters: {json.dumps(asdict(self._settings.common))}')
        for camera, own in self._settings.own.items():
            self.get_logger().info(f'Parameters of the camera {camera}: {json.dumps(own)}')
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._transitions = Transitions(self)
        self._models: list[Model] = []
        self._labels = ['']  # of the models of the newest configuration
        self._cameras: Cameras | None = None
        self._reporter = Reporter(self, self._override_errors)
        self._fault = ''  # why the node left the active state by itself
        self._services_of_cameras: list[Service] = []
        threshold = JumpThreshold(
            min_forward=None,
            min_backward=Duration(nanoseconds=-STEP_BACK_NS),
            on_clock_change=False,
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            threshold, post_callback=self._on_clock_jump
        )
        # With the steady clock, the node reports even while a simulation is paused.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD_S, self._report, clock=steady)
        group = self._transitions.callback_group
        self.create_timer(REPORT_PERIOD_S, self._leave_failing, group, clock=steady)
        if self._settings.common.autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, group, clock=steady)
        guard_services(self)

    async def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the outputs; leads to inactive, or back to unconfigured."""
        del state
        self._fault = ''
        if self._override_errors:
            self.get_logger().error(f'Not configured: {" ".join(self._override_errors)}')
            return TransitionCallbackReturn.FAILURE
        common = self._settings.common
        self.get_logger().info(f'Loading {", ".join(map(repr, common.all_models()))}.')
        try:
            await self._transitions.run(_import_slow_modules, can_be_left=True)
            from videomt_ros.ros.cameras import Cameras
            from videomt_ros.ros.loading import load_engines, set_threads
            from videomt_ros.ros.models import label_models

            set_threads(common.threads)  # here, so that threads which start from now on follow
            settings = self._settings
            engines = await self._transitions.run(
                lambda: load_engines(settings, self.get_logger().error), can_be_left=True
            )
            models = label_models(engines, settings.common.stream_task())
            # The classes are known only now, and dynamic parameters may have changed.
            self._settings.check_classes(_class_names(models))
            for model in models:
                self._settings.check_input_sizes(model.engine.config)
            self._models, self._labels = models, [model.label for model in models]
            reporter = self._reporter
            self._cameras = Cameras(
                self, models, self._settings, reporter.health_of, reporter.model_health_of
            )
            self._create_services()
        except Cancelled:
            pass  # which the log explains
        except Exception as error:  # rclpy would not report it
            self.get_logger().error(f'Not configured: {command_text(error)}')
        else:
            for name, model in zip(common.all_models(), models, strict=True):
                engine, topics = model.engine, f' on {model.prefix}segmentation/...'
                self.get_logger().info(
                    f'Loaded {engine.config.name or repr(name)}: '
                    f'{engine.config.num_classes} classes, '
                    f'{engine.engine_name} on {engine.device} in {engine.dtype}'
                    f'{topics if model.label else ""}.'
                )
                if engine.config.warning and not common.drawn_images:
                    self.get_logger().warning(
                        f'{engine.config.warning}: its results in other images mean nothing. '
                        'Choose a model from `videomt models`, or set drawn_images where the '
                        'images are drawn.'
                    )
            return TransitionCallbackReturn.SUCCESS
        await self._release()  # not above, where the exception may refer to the network
        return TransitionCallbackReturn.FAILURE

    async def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and publish; leads to active."""
        assert self._cameras is not None
        self._cameras.activate()
        return super().on_activate(state)

    async def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and finish the images that are being processed; leads to inactive."""
        assert self._cameras is not None
        self._cameras.deactivate()
        await self._transitions.run(self._cameras.wait)
        if self._fault:
            return TransitionCallbackReturn.ERROR
        return super().on_deactivate(state)

    async def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its memory; leads to unconfigured."""
        del state
        await self._release()
        return TransitionCallbackReturn.SUCCESS

    async def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, from any state; leads to finalized."""
        del state
        await self._release()
        return TransitionCallbackReturn.SUCCESS

    async def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after an error, which the log has; leads to unconfigured."""
        self.get_logger().error(f'Error from the state {state.label}: the model is freed.')
        await self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """End the worker and free everything without a transition, as the process is ending."""
        self._jump_handle.unregister()
        self._destroy(CLOSE_TIMEOUT_S)
        logging.getLogger('videomt_ros').removeHandler(self._log_handler)
        self.destroy_node()

    async def _autostart(self) -> None:
        self._autostart_timer.cancel()
        for state, transition in (('unconfigured', 'configure'), ('inactive', 'activate')):
            await self._transitions.wait()
            if self._transitions.state != state:
                continue  # a lifecycle manager was faster, which is as good
            result = await self._transitions.change(transition)
            if self._transitions.is_cancelled:
                return  # by a peer, which goes on from here
            if result != TransitionCallbackReturn.SUCCESS:
                self.has_failed = True
                return

    async def _leave_failing(self) -> None:
        """Go through the error state once inference fails on all images of a camera."""
        limit = self._settings.common.max_failures
        if not limit or self._transitions.state != 'active':
            return
        for camera in self._cameras or ():
            number, reason = camera.failed_in_row
            if number < limit:
                continue
            whose = f' of the camera {camera.name}' if camera.name else ''
            self._fault = (
                f'Inference failed on {number} images{whose} in a row '
                f'(max_failures is {limit}), at last with {reason}'
            )
            self.get_logger().error(self._fault)
            await self._transitions.change('deactivate')  # ends in ERROR, because of the fault
            if self._settings.common.autostart:
                self.get_logger().fatal('The node ends, since no one configures it again.')
                self.has_failed = True
            return

    async def _release(self) -> None:
        """Free everything, once the images that are being processed are finished."""
        if self._cameras is not None:
            self._cameras.deactivate()
            await self._transitions.run(self._cameras.wait)
        self._destroy()
        await self._transitions.run(return_memory)

    def _destroy(self, timeout_s: float | None = None) -> None:
        """Let go of the network, and remove what depends on it from the node."""
        while self._services_of_cameras:
            self.destroy_service(self._services_of_cameras.pop())
        if self._cameras is not None:
            self._cameras.destroy(timeout_s)
            self._cameras = None
        self._models = []

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Change parameters, as a peer may ask for at any time; overrides that of rclpy."""
        result = super().set_parameters_atomically(parameter_list)
        if result.successful:
            self._settings = follow_changes(self, self._settings, parameter_list)
        return result

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        # rclpy lets one without a name through. Others may not be there yet: it also asks about
        # those that are being declared.
        if not all(change.name for change in changes):
            return SetParametersResult(successful=False, reason='A parameter has no name.')
        try:
            class_names = _class_names(self._models) if self._models else None
            is_loading = self._transitions.state == 'configuring'
            parameters = changed_parameters(self._settings, changes, class_names, is_loading)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._settings = parameters
        if self._cameras is not None:
            self._cameras.update(parameters)
        return SetParametersResult(successful=True)

    def _create_services(self) -> None:
        """Offer `~/reset` and `~/enable` for all cameras, and below `~/<camera>/` for each."""
        for name in ('', *self._settings.common.cameras):
            prefix = f'~/{name}/' if name else '~/'
            # By name: the executor keeps the callback of a destroyed service for a while.
            for kind, service, callback in (
                (Trigger, 'reset', self._on_reset),
                (SetBool, 'enable', self._on_enable),
            ):
                self._services_of_cameras.append(
                    self.create_service(kind, prefix + service, partial(callback, name))
                )

    def _on_reset(
        self, name: str, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Reset the camera of this name, or all of them."""
        del request
        for camera in self._cameras_of(name):
            camera.reset()
        what = f'the camera {name}' if name else 'every camera'
        self.get_logger().info(f'Reset: {what} starts afresh with the next image.')
        response.success = True
        response.message = (
            f'{what.capitalize()} starts afresh with the next image; ids start again at 1.'
        )
        return response

    def _on_enable(
        self, name: str, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        for camera in self._cameras_of(name):
            camera.enable(request.data)
        what = f'The camera {name}' if name else 'Every camera'
        response.success = True
        response.message = f'{what} is {"enabled" if request.data else "paused"}.'
        self.get_logger().info(response.message)
        return response

    def _cameras_of(self, name: str) -> Iterator[CameraStream]:
        """Iterate over the camera of this name; over all cameras if it is empty."""
        return (camera for camera in self._cameras or () if name in ('', camera.name))

    def _on_clock_jump(self, jump: TimeJump) -> None:
        text = (
            f'The clock went back by {-jump.delta.nanoseconds * 1e-9:.3f} s: every camera begins '
            'a new video, and ids go on.'
        )
        if self._throttle.allows(text):
            self.get_logger().warning(text)
        for camera in self._cameras or ():
            camera.follow_clock_jump(self.get_clock().now().nanoseconds)

    def _report(self) -> None:
        cameras = list(self._cameras or ())
        for camera in cameras:
            camera.follow_publishers()
        models: dict[str, dict[str, str]] = {label: {} for label in self._labels}
        if self._models:
            from videomt_ros.ros.loading import describe_engines

            engines = [model.engine for model in self._models]
            models = dict(zip(self._labels, describe_engines(engines), strict=True))
        for values in models.values():
            values['seconds_in_state'] = f'{self._transitions.seconds_in_state:.1f}'
        self._reporter.report(
            self._transitions.state, self._settings, cameras, models, self._fault
        )


def _class_names(models: Sequence[Model]) -> list[str]:
    """List the names of the classes of all models, each once."""
    names = (name for model in models for name in model.engine.config.class_names)
    return list(dict.fromkeys(names))


def _import_slow_modules() -> None:
    """Import what needs torch, once in a process."""
    for name in ('cameras', 'loading'):
        import_module(f'videomt_ros.ros.{name}')
