"""Keep the node alive and answering, whatever its peers send.

In rclpy an exception in any callback ends the process, and rclpy's own callbacks raise some on
requests of peers: a transition that the present state does not have, a parameter of an unknown
type, a negative time on `/clock`. An exception that comes before the callback, as the message is
taken from the middleware, would also leave its subscription or service deaf.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.logging import get_logger
from rclpy.service import Service

from videomt_ros.ros.logs import Throttle


class GuardedExecutor(SingleThreadedExecutor):
    """Executes callbacks one by one; an exception in one is logged, and the spin goes on."""

    def __init__(self) -> None:
        """Create an executor without nodes."""
        super().__init__()
        self._throttle = Throttle()

    def _make_handler(
        self,
        entity: Any,
        node: Any,
        take_from_wait_list: Callable[[Any], Any],
        *execute: Callable[..., Awaitable[None]],
    ) -> Any:
        """Make the task that takes and executes what an entity received, as rclpy does, guarded.

        `take_from_wait_list` returns what to execute (Jazzy, Kilted) or the data for `execute`
        (Humble); in both, None means that there is nothing to do. An exception that it raised
        would leave the entity marked as busy for ever.
        """

        def take(entity: Any) -> Any:
            try:
                taken = take_from_wait_list(entity)
            except Exception as error:
                self._log(node, entity, error)
                return None
            return taken if execute or taken is None else guard(taken)

        def guard(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            async def guarded(*args: Any) -> None:
                try:
                    await function(*args)
                except Exception as error:
                    self._log(node, entity, error)

            return guarded

        return super()._make_handler(entity, node, take, *map(guard, execute))

    def _log(self, node: Any, entity: Any, error: Exception) -> None:
        if not self._context.ok():
            return  # nothing can be published any more, as the process is ending
        name = getattr(entity, 'topic_name', None) or getattr(entity, 'srv_name', None)
        text = f'{name or type(entity).__name__}: {type(error).__name__}: {error}'
        if self._throttle.allows(text):
            logger = get_logger('segmenter') if node is None else node.get_logger()
            logger.error(f'Ignored what could not be handled, from {text}')


def guard_services(node: LifecycleNode) -> None:
    """Have every service that a node has now answer each request.

    A callback that raises answers with the default values of the response, in which `success` is
    False, and logs why.
    """
    throttle = Throttle()
    for service in node.services:
        _guard_service(node, service, throttle)


def _guard_service(node: LifecycleNode, service: Service, throttle: Throttle) -> None:
    handle = service.callback

    def answer(request: Any, response: Any) -> Any:
        if isinstance(request, SetParameters.Request):
            # One by one, so that a parameter of an unknown type does not take the others along.
            for parameter in request.parameters:
                single = SetParameters.Request(parameters=[parameter])
                response.results += try_to(single, SetParameters.Response()).results
            return response
        return try_to(request, response)

    def try_to(request: Any, response: Any) -> Any:
        try:
            return handle(request, response)
        except Exception as error:
            return refuse(request, response, error)

    async def answer_later(request: Any, response: Any) -> Any:
        try:
            return await handle(request, response)
        except Exception as error:
            return refuse(request, response, error)

    def refuse(request: Any, response: Any, error: Exception) -> Any:
        reason = f'{type(error).__name__}: {error}'
        text = f'Request to {service.srv_name} refused: {reason}'
        if throttle.allows(text):
            node.get_logger().warning(text)
        return _refused(request, type(response)(), reason)

    service.callback = answer_later if inspect.iscoroutinefunction(handle) else answer


def _refused(request: Any, response: Any, reason: str) -> Any:
    """Write the refusal into an empty response, where its type has a place for it."""
    refusal = SetParametersResult(successful=False, reason=reason)
    if isinstance(request, SetParameters.Request):
        response.results = [refusal]
    elif isinstance(request, SetParametersAtomically.Request):
        response.result = refusal
    return response
