"""Start processes on a ROS domain of their own, read the events that they print, and end them.

This module does not need rclpy itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from videomt_ros.resources import resource

_STOP_TIMEOUT_S = 15.0
"""Longest time, in seconds, from SIGINT to the end of a process. A segmenter first finishes the
image that it is processing."""
_ROBOT_VARIABLES = (
    'CYCLONEDDS_URI',
    'FASTDDS_BUILTIN_TRANSPORTS',
    'RMW_IMPLEMENTATION',
    'ROS_AUTOMATIC_DISCOVERY_RANGE',
    'ROS_DISCOVERY_SERVER',
    'ROS_LOCALHOST_ONLY',
    'ROS_STATIC_PEERS',
    'ROS_SUPER_CLIENT',
)
"""Variables that a robot's shell may set so that its nodes find each other. With them, the nodes
of a run might not find each other, or find those of the robot."""
_FIRST_PORT, _PORTS_PER_DOMAIN = 7410, 250
"""The port of the first participant of domain 0, and the step from a domain to the next
(DDSI-RTPS, 9.6.1.1)."""
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_LOG_PREFIX = re.compile(r'^\[(?P<level>[A-Z]+)\] \[[\d.]+\] \[[^\]]*\]: ')


def emit(event: str, **values: Any) -> None:
    """Print an event for the process that started this one.

    An event is one line of JSON on stdout, so that logs on stderr do not mix with it. Events tell
    what happened; images and results go over DDS only.

    Args:
        event: what happened.
        values: further entries of the JSON object.
    """
    print(json.dumps({'event': event, **values}), flush=True)


def _parse_event(line: str) -> dict[str, Any] | None:
    """Read a line that `emit` printed; None if it is another one."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and 'event' in event else None


class ProcessError(ValueError):
    """A process of a run ended too early; the message holds the last errors that it logged."""


class RigProcesses:
    """Context manager that starts processes, and ends all of them when it exits.

    Every process has a session of its own, so that a Ctrl-C reaches only this process, which then
    ends the others in order. If this process is killed, the system ends them.
    """

    def __init__(self, folder: Path, namespace: str | None = None) -> None:
        """Choose a ROS domain that is not in use; no process is started.

        Args:
            folder: receives the logs of the processes.
            namespace: namespace of the processes among the nodes that run already, in the domain
                and with the middleware of this process; None: a domain of their own.

        Raises:
            ModuleNotFoundError: rclpy or this package's messages cannot be imported.
        """
        for module in ('rclpy', 'videomt_ros.msg'):
            if find_spec(module) is None:
                raise ModuleNotFoundError(f'A run of the node needs {module}.', name=module)
        self._domain_lock = hold_free_domain() if namespace is None else None
        self.domain_id = domain_of(self._domain_lock) if self._domain_lock else None
        """Id of the domain of their own, if they have one."""
        self.namespace = f'/demo_{os.getpid()}' if namespace is None else namespace
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._handlers: dict[int, Any] = {}
        self._is_interrupted = False
        self._readers: list[threading.Thread] = []
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def __enter__(self) -> RigProcesses:
        self._profile().write_text(_local_profile(), encoding='utf-8')
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._note_interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def start(
        self,
        name: str,
        module: str,
        args: Sequence[str] = (),
        parameters: Mapping[str, str | int | bool | list[str]] | None = None,
        params_file: Path | None = None,
    ) -> None:
        """Start a process; `next_event` returns the events that it prints.

        Args:
            name: name of the process in logs and errors.
            module: module to run, as for `python -m`.
            args: arguments of the command line.
            parameters: parameters of its ROS node.
            params_file: file of further parameters; `parameters` take precedence.
        """
        command = [sys.executable, '-m', module, *args, '--ros-args']
        command += ['-r', f'__ns:={self.namespace}']
        if params_file is not None:
            command += ['--params-file', str(params_file)]
        # Of two values of a parameter, ROS takes the later one.
        for key, value in (parameters or {}).items():
            # As JSON, which is also YAML, a model named 1.0 does not become a number.
            command += ['-p', f'{key}:={json.dumps(value, ensure_ascii=False)}']
        with self._log(name).open('w', encoding='utf-8') as log:
            process = subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=_prepare_child,
            )
        self._processes[name] = process
        reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def next_event(self, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """Wait for an event of any process.

        Returns:
            Name of the process and the event; None after the timeout.

        Raises:
            ProcessError: a process ended with an error.
            KeyboardInterrupt: this process got SIGINT or SIGTERM.
        """
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt
        for name in self._processes:
            self.check(name)
        with contextlib.suppress(queue.Empty):
            return self._events.get(timeout=timeout_s)
        return None

    def is_running(self, name: str) -> bool:
        """Whether a process has not ended yet."""
        return self._processes[name].poll() is None

    def pid(self, name: str) -> int:
        """Get the number of a process."""
        return self._processes[name].pid

    def check(self, name: str) -> None:
        """Check that a process did not end with an error.

        Raises:
            ProcessError: it did.
        """
        code = self._processes[name].poll()
        if code:
            how = f'exit code {code}' if code > 0 else f'signal {signal.Signals(-code).name}'
            raise ProcessError(f'The {name} ended with {how}: {self.last_errors(name)}')

    def logged(self, name: str, start: str) -> list[str]:
        """Find the messages in the log of a process that start with a text."""
        lines = self._log(name).read_text(encoding='utf-8', errors='replace').splitlines()
        return [line[line.index(start) :] for line in lines if start in line]

    def last_errors(self, name: str) -> str:
        """Get the last errors that a process logged, or the last lines if it logged no error."""
        lines = self._log(name).read_text(encoding='utf-8', errors='replace').splitlines()
        errors = [
            line[match.end() :]
            for line in lines
            if (match := _LOG_PREFIX.match(line)) and match['level'] in ('ERROR', 'FATAL')
        ]
        return '\n'.join(errors[-3:] or lines[-3:]) or 'it logged nothing.'

    def interrupt(self, name: str) -> None:
        """Send SIGINT to a process, as Ctrl-C in its terminal would."""
        if self.is_running(name):
            self._processes[name].send_signal(signal.SIGINT)

    def finish(self, name: str) -> None:
        """Send SIGINT to a process and wait for its end.

        Raises:
            ProcessError: the process ended with an error, or not in time.
        """
        self.interrupt(name)
        try:
            self._processes[name].wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(
                f'The {name} did not end within {_STOP_TIMEOUT_S:.0f} s of SIGINT: '
                f'{self.last_errors(name)}'
            ) from error
        self.check(name)

    def close(self) -> None:
        """End every process; those that do not end at SIGINT are killed."""
        for name in self._processes:
            self.interrupt(name)
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        try:
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline_s - time.monotonic()))
        finally:
            for process in self._processes.values():
                # Its whole session, so that its child processes end too.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for reader in self._readers:
                reader.join()
            if self._domain_lock is not None:
                self._domain_lock.close()

    def _note_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one takes effect in `next_event`, the second one at once."""
        del number, frame
        if self._is_interrupted:
            raise KeyboardInterrupt
        self._is_interrupted = True

    def _environment(self) -> dict[str, str]:
        """Copy this process's environment, except for what a domain of their own excludes."""
        if self.domain_id is None:
            return {**os.environ, 'RCUTILS_COLORIZED_OUTPUT': '0'}
        environment = {
            **{key: value for key, value in os.environ.items() if key not in _ROBOT_VARIABLES},
            'ROS_DOMAIN_ID': str(self.domain_id),
            'ROS_LOG_DIR': str(self._folder),
            'RCUTILS_COLORIZED_OUTPUT': '0',
        }
        # Fast DDS before 3 (Kilted) reads the first of the two.
        for variable in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
            environment[variable] = str(self._profile())
        # Messages stay on this machine. Humble knows only the older of the two names, and later
        # releases warn about that one.
        if environment.get('ROS_DISTRO') == 'humble':
            environment['ROS_LOCALHOST_ONLY'] = '1'
        else:
            environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        return environment

    def _profile(self) -> Path:
        return self._folder / 'fastdds.xml'

    def _log(self, name: str) -> Path:
        return self._folder / f'{name}.log'

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        """Read the events from a process's stdout; runs in a thread."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                event = _parse_event(line)
                if event is not None:
                    self._events.put((name, event))


def _prepare_child() -> None:
    """Prepare a child before it starts: it receives SIGINT, and ends if the parent is killed."""
    # A shell's background job ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Elsewhere than on Linux, a parent that is killed leaves its children behind.
    if sys.platform == 'linux':
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _local_profile() -> str:
    """Get the profile of Fast DDS for images, restricted to this machine."""
    text = resource('config', 'fastdds_images.xml').read_text(encoding='utf-8')
    udp = '<type>UDPv4</type>'
    assert text.count(udp) == 1
    loopback = '<interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>'
    return text.replace(udp, udp + loopback)


def hold_free_domain() -> socket.socket:
    """Find a domain without participants on this machine, and keep others from choosing it.

    Two runs that start at the same time both find a domain free before either has a participant
    in it. So the choice is made by binding a TCP port, which DDS, on UDP, does not use.

    Returns:
        The bound socket; the domain is held until it is closed. See `domain_of`.

    Raises:
        ProcessError: all domains from 1 to 101 are in use. The default of ROS, 0, is never taken.
    """
    for domain_id in random.sample(range(1, 102), 101):
        port = _FIRST_PORT + _PORTS_PER_DOMAIN * domain_id
        lock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            lock.bind(('127.0.0.1', port))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(('', port))
        except OSError:
            lock.close()
        else:
            return lock
    raise ProcessError('Every ROS domain from 1 to 101 is in use on this machine.')


def domain_of(lock: socket.socket) -> int:
    """Get the id of the domain that a socket of `hold_free_domain` holds."""
    return (lock.getsockname()[1] - _FIRST_PORT) // _PORTS_PER_DOMAIN
