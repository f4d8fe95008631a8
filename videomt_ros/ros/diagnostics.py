"""The statuses on `/diagnostics`: one of each camera and one of the model.

The keys of the statuses are part of the package's interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from videomt_ros.ros.health import CameraHealth, ModelHealth
from videomt_ros.ros.parameters import NodeParameters

ERROR_SHOWN_S = 60.0
"""Time in seconds for which the text of an error is shown."""
_MIN_RATE_S = 10.0
"""Time in seconds after the first image from which the rate is judged."""
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class CameraDiagnostics:
    """Writes the statuses of one camera."""

    def __init__(self, health: CameraHealth) -> None:
        """Report on a camera.

        Args:
            health: its counts.
        """
        self._health = health
        self._faults_reported = 0
        self._failures_reported = 0

    def to_msg(
        self,
        name: str,
        device: str,
        state: str,
        parameters: NodeParameters,
        troubles: Sequence[str] = (),
        silent_s: float | None = None,
    ) -> DiagnosticStatus:
        """Build the status.

        Args:
            name: name of the component, as `node: task`.
            device: device of the network; empty without a network.
            state: state of the node's life cycle, or `disabled`.
            parameters: parameters of the camera, with the thresholds.
            troubles: sentences on what is wrong at present, and what to do; they begin the
                message of the status.
            silent_s: time in seconds for which no image came; None while none is expected.

        Returns:
            ERROR if inference failed since the previous status or a threshold of errors is
            passed; WARN if there are troubles, images were rejected since the previous status, or
            a threshold of warnings is passed; else OK.
        """
        health = self._health
        troubles = list(troubles)
        levels = [WARN if troubles or health.faults > self._faults_reported else OK]
        if health.failed > self._failures_reported:
            levels.append(ERROR)
            troubles.append(f'Image not processed: {health.last_error}')
        self._faults_reported, self._failures_reported = health.faults, health.failed
        if silent_s is not None:
            for level, text in self._judge(parameters, silent_s):
                levels.append(level)
                troubles += [text] if text else []
        values = {'state': state, **self._values()}
        if parameters.depth:
            values |= {f'depth_{outcome}': number for outcome, number in health.depth.items()}
        return _status(max(levels), name, device, (*troubles, health.summary()), values)

    def _judge(self, parameters: NodeParameters, silent_s: float) -> list[tuple[bytes, str]]:
        """Compare latency, silence and rate with their thresholds.

        Returns:
            The level of each, and a sentence on what is wrong, or nothing.
        """
        health = self._health
        judged = []
        latencies = health.latencies_ms()
        if latencies is not None:
            judged.append(_above('Latency p95', 'ms', latencies[1], parameters, 'latency_ms'))
        # The warning of a silence is among the troubles, with its reason.
        limit_s = parameters.error_silence_s
        if limit_s and silent_s > limit_s:
            text = f'No image for {silent_s:.0f} s, above error_silence_s = {limit_s:g}.'
            judged.append((ERROR, text))
        if health.seconds_since_first() > _MIN_RATE_S:
            judged.append(_below('Rate of results', health.rates_hz()[1], parameters))
        return judged

    def _values(self) -> dict[str, object]:
        """List the counts, rates and times of the camera by their keys."""
        health = self._health
        since_image = health.seconds_since_image()
        since_error = health.seconds_since_error()
        latencies = health.latencies_ms()
        input_hz, output_hz = health.rates_hz()
        is_recent = since_error is not None and since_error < ERROR_SHOWN_S
        values: dict[str, object] = {
            'received': health.received,
            'processed': health.processed,
            'dropped': sum(health.dropped.values()),
            'rejected': sum(health.rejected.values()),
            'failed': health.failed,
            **{f'dropped_{reason}': number for reason, number in health.dropped.items()},
            **{f'rejected_{kind}': number for kind, number in sorted(health.rejected.items())},
            'lost': health.lost,
            'missing': health.missing,
            'resets': sum(health.resets.values()),
            **{f'resets_{reason}': number for reason, number in sorted(health.resets.items())},
            'tracks_alive': health.tracks_alive,
            'tracks_ever': health.tracks_ever,
            'input_hz': f'{input_hz:.2f}',
            'processed_hz': f'{output_hz:.2f}',
            'last_error': health.last_error if is_recent else '',
        }
        if latencies is not None:
            keys = ('latency_p50_ms', 'latency_p95_ms', 'latency_max_ms')
            values |= {key: f'{ms:.1f}' for key, ms in zip(keys, latencies, strict=True)}
        if since_error is not None:
            values['seconds_since_error'] = f'{since_error:.1f}'
        for key in ('state_norm', 'state_norm_start'):
            norm = getattr(health, key)
            if norm is not None:
                values[key] = f'{norm:.2f}'
        if since_image is not None:
            values['seconds_since_image'] = f'{since_image:.1f}'
        return values


def model_status(
    name: str,
    health: ModelHealth,
    state: str,
    values: Mapping[str, str],
    error_stall_s: float,
    troubles: Sequence[str] = (),
    fault: str = '',
) -> DiagnosticStatus:
    """Build the status of the model.

    Args:
        name: name of the component, as `node: task`.
        health: durations of the stages.
        state: state of the node's life cycle.
        values: what is known of the model: name, device, precision and memory.
        error_stall_s: time in seconds for one batch above which it counts as stalled; 0: never.
        troubles: sentences on what is wrong at present, and what to do.
        fault: why the node left the active state by itself; empty if it did not.

    Returns:
        ERROR if one batch is being processed for longer than `error_stall_s`, or after a fault;
        WARN if there are troubles; else OK.
    """
    busy_s = health.busy_s()
    level = WARN if troubles else OK
    if fault:
        level = ERROR
        troubles = [*troubles, fault]
    if error_stall_s and busy_s > error_stall_s:
        level = ERROR
        troubles = [*troubles, f'The network has been busy with one batch for {busy_s:.0f} s.']
    message = troubles or [f'{values.get("model") or "No model"}, {state}.']
    all_values = {'state': state, **values, **health.values(), 'busy_s': f'{busy_s:.1f}'}
    return _status(level, name, values.get('device', ''), message, all_values)


def _above(
    what: str, unit: str, value: float, parameters: NodeParameters, threshold: str
) -> tuple[bytes, str]:
    """Judge a value that should be small; a threshold of 0 is none."""
    for level, word in ((ERROR, 'error'), (WARN, 'warn')):
        limit = getattr(parameters, f'{word}_{threshold}')
        if limit and value > limit:
            return level, f'{what}: {value:.1f} {unit}, above {word}_{threshold} = {limit:g}.'
    return OK, ''


def _below(what: str, rate_hz: float, parameters: NodeParameters) -> tuple[bytes, str]:
    """Judge a rate that should be large; a threshold of 0 is none."""
    for level, word in ((ERROR, 'error'), (WARN, 'warn')):
        limit = getattr(parameters, f'{word}_rate_hz')
        if rate_hz < limit:
            return level, f'{what}: {rate_hz:.1f} Hz, below {word}_rate_hz = {limit:g}.'
    return OK, ''


def _status(
    level: bytes, name: str, device: str, message: Sequence[str], values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=' '.join(message),
        hardware_id=device,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
