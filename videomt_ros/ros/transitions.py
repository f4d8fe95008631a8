"""Run the transitions of the life cycle without keeping the executor from other callbacks.

rclpy runs a transition inside the callback of its service, so that a node does not answer while
its model loads. Here the callbacks of a node's transitions may be coroutines. They run in the
executor's thread, and await in `run` what takes long, which runs in a thread of its own; the
executor goes on with other callbacks meanwhile. So all objects of rclpy are used by one thread.
"""

from __future__ import annotations

import contextlib
import inspect
import reprlib
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from lifecycle_msgs.msg import Transition, TransitionDescription
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions
from rclpy.callback_groups import CallbackGroup, ReentrantCallbackGroup
from rclpy.executors import InvalidHandle
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future

from videomt_ros.ros.logs import Throttle
from videomt_ros.ros.memory import return_memory

Result = TypeVar('Result')

LABELS = {
    Transition.TRANSITION_CONFIGURE: 'configure',
    Transition.TRANSITION_CLEANUP: 'cleanup',
    Transition.TRANSITION_ACTIVATE: 'activate',
    Transition.TRANSITION_DEACTIVATE: 'deactivate',
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: 'shutdown',
    Transition.TRANSITION_INACTIVE_SHUTDOWN: 'shutdown',
    Transition.TRANSITION_ACTIVE_SHUTDOWN: 'shutdown',
}
"""Labels of the transitions that a peer may ask for, by their ids."""
LEADS_TO = {'cleanup': 'unconfigured', 'deactivate': 'unconfigured', 'shutdown': 'finalized'}
"""Transitions that end a `configure` in progress, and the states that they then lead to."""


class Cancelled(Exception):
    """The transition was ended by a request for another one."""


class Transitions:
    """Runs the transitions of one node, one at a time; used in the executor's thread alone.

    While a transition is in progress, requests for others are refused, with two exceptions:
    `shutdown` follows as soon as the present one has ended, and each of LEADS_TO ends `configure`,
    which then fails.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Take over the services of a node that change its state and list its transitions."""
        self._node = node
        self._machine = node._state_machine
        self._throttle = Throttle()
        self._since_s = time.monotonic()
        self._ended: Future | None = None  # of the transition in progress
        self._job: _Job | None = None
        self._is_cancelled = False
        self.callback_group: CallbackGroup = ReentrantCallbackGroup()
        """Group for callbacks that await a transition. In the node's own group, a callback would
        keep all others from running until the transition has ended."""
        change, listing = node._service_change_state, node._service_get_available_transitions
        change.callback_group = self.callback_group
        self.callback_group.add_entity(change)
        change.callback = self._answer
        self._list = listing.callback
        listing.callback = self._list_transitions

    @property
    def state(self) -> str:
        """The state of the life cycle, such as `active` or, during a transition, `configuring`."""
        return self._machine.current_state[1]

    @property
    def seconds_in_state(self) -> float:
        """The time since the state was entered."""
        return time.monotonic() - self._since_s

    @property
    def is_cancelled(self) -> bool:
        """Whether a request has ended the newest transition before it could succeed."""
        return self._is_cancelled

    async def wait(self) -> None:
        """Wait until no transition is in progress."""
        while self._ended is not None:
            await self._ended

    async def change(self, transition: int | str) -> TransitionCallbackReturn:
        """Run a transition, given by its id or label, when none is in progress.

        Returns:
            What its callback returned. After ERROR, the callback of the error state has run too.

        Raises:
            RCLError: the present state does not have the transition.
        """
        assert self._ended is None
        self._ended = Future()
        self._is_cancelled = False
        try:
            before = LifecycleState(label=self.state, state_id=self._machine.current_state[0])
            if isinstance(transition, str):
                transition = self._machine.get_transition_by_label(transition)
            self._machine.trigger_transition_by_id(transition, True)
            result = await self._call_back(before)
            self._enter(result)
            if result == TransitionCallbackReturn.ERROR:
                self._enter(await self._call_back(before))
            return result
        finally:
            ended, self._ended = self._ended, None
            ended.set_result(None)
            self._wake()

    async def run(self, function: Callable[[], Result], can_be_left: bool = False) -> Result:
        """Await a function that runs in a thread of its own.

        Args:
            function: takes no arguments.
            can_be_left: whether a request that ends the transition need not wait for the function,
                which then ends when it may; its result is not used.

        Raises:
            Cancelled: a request has ended the transition.
            Exception: raised by the function.
        """
        job = _Job(function, self._wake)
        if can_be_left:
            self._job = job
        try:
            return await job.result()
        finally:
            self._job = None

    async def _call_back(self, before: LifecycleState) -> TransitionCallbackReturn:
        """Call the node for the transition that has begun; an exception is an ERROR."""
        self._since_s = time.monotonic()
        callback = self._node._callbacks.get(self._machine.current_state[0])
        if callback is None:
            return TransitionCallbackReturn.SUCCESS
        try:
            result = callback(before)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            self._node.get_logger().error(f'{self.state}: {type(error).__name__}: {error}')
            return TransitionCallbackReturn.ERROR

    def _enter(self, result: TransitionCallbackReturn) -> None:
        self._machine.trigger_transition_by_label(result.to_label(), True)
        self._since_s = time.monotonic()

    async def _answer(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Answer a request for a transition once it has ended, or at once that it is refused."""
        wanted = request.transition
        label = wanted.label or LABELS.get(wanted.id, '')
        name = reprlib.repr(label) if label else f'with id {wanted.id}'
        transition = wanted.label or wanted.id
        response.success = False
        if self._ended is not None:
            ended, state = self._ended, self.state
            if label == 'shutdown' or (state == 'configuring' and label in LEADS_TO):
                self._cancel(label)
                await ended
                if label != 'shutdown':
                    response.success = True
                    return response
                # The id is that of a state which has passed.
                await self.wait()
                transition = label
            else:
                self._refuse(name, f'{state}. Ask again once that has ended')
                return response
        possible = {number: text for number, text, *_ in self._machine.available_transitions}
        known = possible.values() if isinstance(transition, str) else possible
        if transition not in known:
            choice = ', '.join(f'{text} ({number})' for number, text in possible.items())
            self._refuse(name, f'{self.state}, where the transitions are {choice or "none"}')
            return response
        response.success = await self.change(transition) == TransitionCallbackReturn.SUCCESS
        return response

    def _refuse(self, name: str, state: str) -> None:
        text = f'Transition {name} refused: the node is {state}.'
        if self._throttle.allows(text):
            self._node.get_logger().warning(text)

    def _cancel(self, label: str) -> None:
        """End `configure` if it is in progress, for a request with this label."""
        if self.state != 'configuring':
            return
        self._is_cancelled = True
        self._node.get_logger().info(f'The request for {label} ends the load of the model.')
        if self._job is not None:
            self._job.leave()

    def _list_transitions(
        self,
        request: GetAvailableTransitions.Request,
        response: GetAvailableTransitions.Response,
    ) -> GetAvailableTransitions.Response:
        """Answer which transitions a peer may ask for, also during another one.

        rcl would list those with which a callback reports its result, but `ros2 lifecycle set`
        asks only for what is listed.
        """
        if self._ended is None:
            return self._list(request, response)
        number, state = self._machine.current_state
        ids = {label: transition for transition, label in reversed(LABELS.items())}
        for label, goal in LEADS_TO.items():
            if state == 'configuring' or label == 'shutdown':
                entry = TransitionDescription()
                entry.transition.id, entry.transition.label = ids[label], label
                entry.start_state.id, entry.start_state.label = number, state
                entry.goal_state.id = next(
                    (i for i, name in self._machine.available_states if name == goal), 0
                )
                entry.goal_state.label = goal
                response.available_transitions.append(entry)
        return response

    def _wake(self) -> None:
        """Have the executor resume the coroutines whose futures are done."""
        executor = self._node.executor
        if executor is not None:
            with contextlib.suppress(InvalidHandle):  # the process is ending
                executor.wake()


class _Job(Generic[Result]):
    """A function that runs in a thread of its own, and that a coroutine awaits."""

    def __init__(self, function: Callable[[], Result], wake: Callable[[], None]) -> None:
        """Start the thread; without memory for one, run the function at once.

        Args:
            function: the function.
            wake: called in the thread when the function has ended.
        """
        self._function = function
        self._wake = wake
        self._lock = threading.Lock()
        self._is_left = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._done = Future()
        # A daemon, so that the process can end though the function does not.
        thread = threading.Thread(target=self._run, name='transition', daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no memory for its stack, as after failures of the network
            self._run()

    async def result(self) -> Result:
        """Wait for the function, and return or raise what it did; Cancelled if it was left."""
        await self._done
        if self._is_left:
            raise Cancelled
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def leave(self) -> None:
        """Have the coroutine go on without the result."""
        with self._lock:
            self._is_left = True
        self._done.set_result(None)

    def _run(self) -> None:
        result, error = None, None
        try:
            result = self._function()
        except BaseException as raised:
            error = raised
        with self._lock:
            is_left = self._is_left
            if not is_left:
                self._result, self._error = result, error
        del result, error
        if is_left:
            return_memory()
        else:
            self._done.set_result(None)
            self._wake()
