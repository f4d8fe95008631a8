"""One run of camera, segmenter and recorder, from their start to the last result.

This module does not need rclpy itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videomt_ros.errors import OUTPUT_FAULT
from videomt_ros.progress import Progress
from videomt_ros.rig.processes import RigProcesses

_READY_TIMEOUT_S = 300.0
"""Longest time until the segmenter is active, in seconds; it may have to download the model."""
_IDLE_S, _BUSY_S = 4.0, 120.0
"""Longest times without progress, in seconds: when every image that arrived is finished and the
camera has ended, and before that."""


class RigRun:
    """Plays a source to the node, and waits until every image is accounted for."""

    def __init__(
        self,
        folder: Path,
        num_expected: int | None,
        is_endless: bool,
        running: str = '',
    ) -> None:
        """Describe a run; `execute` starts it.

        Args:
            folder: receives the logs of the processes.
            num_expected: number of images that the camera will send, None if that is not known.
            is_endless: the source has no end of its own, so a Ctrl-C ends the camera only, and the
                results of what it sent are awaited; otherwise a Ctrl-C ends the run.
            running: full name of a segmenter that runs already, such as `/segmenter`; empty: the
                run starts one, in a domain of its own.
        """
        self._folder, self._is_endless = folder, is_endless
        self._num_expected = num_expected
        self._running = running
        self.sent: list[dict[str, Any]] = []
        """The `sent` events of the camera, one per image."""
        self.health: dict[str, str] = {}
        """The segmenter's newest diagnostics."""
        self.notes: list[str] = []
        """Remarks for the user, such as images that were lost."""
        self.kept = 0
        """Number of images whose results all arrived at the recorder."""
        self._before: dict[str, str] = {}
        """Its diagnostics before the first image."""
        self._is_ready = self._is_over = False

    def execute(
        self,
        parameters: Mapping[str, str | int | bool],
        recorder: Sequence[str],
        camera: Sequence[str],
        playing: str,
        params_file: Path | None = None,
    ) -> None:
        """Start all processes, wait for the last result, and end them.

        Args:
            parameters: parameters of the segmenter, with `model` among them; not used if one runs
                already.
            recorder: arguments of `rig.recorder`.
            camera: arguments of `rig.camera`.
            playing: description of the source, for the user.
            params_file: file of further parameters; `parameters` take precedence.

        Raises:
            ValueError: a process failed, or no result came.
        """
        namespace, _, name = self._running.rpartition('/')
        with RigProcesses(self._folder, (namespace or '/') if name else None) as processes:
            recorder = [*recorder, *(['--segmenter', name] if name else [])]
            processes.start('recorder', 'videomt_ros.rig.recorder', recorder)
            if name:
                print(f'Waiting for {self._running} to be active', flush=True)
            else:
                print(
                    f'Loading model {parameters["model"]} (to listen in: '
                    f'ROS_DOMAIN_ID={processes.domain_id}, topics {processes.namespace}/...)',
                    flush=True,
                )
                processes.start(
                    'segmenter',
                    'videomt_ros.ros',
                    # Deep, so that only the node decides which images it leaves out.
                    parameters={'input_reliability': 'reliable', 'input_depth': 100, **parameters},
                    params_file=params_file,
                )
            self._wait_until_ready(processes)
            print(f'Playing {playing}', flush=True)
            processes.start('camera', 'videomt_ros.rig.camera', camera)
            self._wait_for_results(processes)
            processes.finish('recorder')
            if not name:
                self.notes += processes.logged('segmenter', OUTPUT_FAULT)
        if not self.kept or not self.sent:
            reason = self.health.get('last_error') or 'it reports no error.'
            raise ValueError(f'No result of the segmenter arrived; its last error: {reason}')

    def counts(self) -> tuple[int, int, int, int]:
        """Count the images that were sent, received, settled (processed or not), and kept."""
        received, processed, *given_up = (
            self.count(key) for key in ('received', 'processed', 'dropped', 'rejected', 'failed')
        )
        return len(self.sent), received, processed + sum(given_up), self.kept

    def count(self, key: str) -> int:
        """Get a count of the segmenter, from the first image of the run on."""
        return int(self.health.get(key, 0)) - int(self._before.get(key, 0))

    def _wait_until_ready(self, processes: RigProcesses) -> None:
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while not self._is_ready:
            self._take(processes.next_event(0.2))
            if time.monotonic() > deadline_s:
                reason = (
                    f'is there a node {self._running}, does it publish tracks, and has it one '
                    'model? The topics of several have other names.'
                )
                if not self._running:
                    reason = processes.last_errors('segmenter')
                raise ValueError(
                    f'The segmenter was not active after {_READY_TIMEOUT_S:.0f} s: {reason}'
                )

    def _wait_for_results(self, processes: RigProcesses) -> None:
        """Wait until every image is accounted for, or there is no progress any more."""
        # What a camera will send is a guess.
        total = None if self._is_endless else self._num_expected
        with Progress(total, 'frame', stream=sys.stdout) as progress:
            self._follow(processes, progress)

    def _follow(self, processes: RigProcesses, progress: Progress) -> None:
        """Take events until the run is complete, or stands still."""
        state, changed_s = ((0, 0, 0, 0), False), time.monotonic()
        while not self._is_complete():
            try:
                self._take(processes.next_event(0.2))
            except KeyboardInterrupt:
                if not self._is_endless or not processes.is_running('camera'):
                    raise
                processes.interrupt('camera')
            now_s = time.monotonic()
            # The end of the camera counts as progress: one whose stream stalls ends late.
            if state != (self.counts(), self._is_over):
                state, changed_s = (self.counts(), self._is_over), now_s
            sent, received, settled, kept = state[0]
            progress.show(sent, note=f'results of {kept}')
            patience_s = _IDLE_S if settled == received and self._is_over else _BUSY_S
            if now_s - changed_s > patience_s:
                self.notes.append(
                    f'Stopped waiting: of {sent} frames {sent - received} did not reach the '
                    f'segmenter, {received - settled} are still in work, and the results of '
                    f'{self.count("processed") - kept} did not reach the recorder whole.'
                )
                break

    def _take(self, source_and_event: tuple[str, dict[str, Any]] | None) -> None:
        if source_and_event is None:
            return
        event = source_and_event[1]
        kind = event.pop('event')
        if kind == 'ready':
            self._is_ready, self._before = True, self.health
        elif kind == 'sent':
            self.sent.append(event)
        elif kind == 'health':
            self.health = event
        elif kind == 'kept':
            self.kept = event['frames']
        elif kind == 'end':
            self._is_over = True
            self.notes += event['notes']

    def _is_complete(self) -> bool:
        sent, received, settled, kept = self.counts()
        is_settled = sent == received == settled and kept >= self.count('processed')
        return self._is_over and is_settled
