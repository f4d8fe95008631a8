"""Where the work, the time and the memory of a step go, beside what the machine allows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from videomt_ros.model import VidEoMT
from videomt_ros.speed.memory import peak_bytes, weight_bytes
from videomt_ros.speed.parts import PARTS, time_parts
from videomt_ros.speed.roofline import Peaks, measure_peaks
from videomt_ros.speed.work import Work, count_work, total


@dataclass(frozen=True)
class Analysis:
    """Work, time and memory of each part of a step of the eager network."""

    peaks: Peaks
    """Peaks of the device in the number format of the network."""
    work: dict[str, Work]
    times_ms: dict[str, float]
    """Median milliseconds of each part."""
    peak_bytes: dict[str, int]
    """Largest memory during each part, beyond the weights and the input."""
    weight_bytes: int

    def floor_ms(self, part: str) -> float:
        """Return the time of a part at the peaks of this device."""
        return self.work[part].floor_ms(self.peaks.tflops, self.peaks.gigabytes_per_s)

    def rows(self) -> list[tuple[str, ...]]:
        """Build a table with a row for each part, and one for the step."""
        cells: list[tuple[str, ...]] = [
            ('part of a step, eager', 'GFLOP', 'FLOP/byte', 'floor, ms', 'ms', 'share', 'peak, MB')
        ]
        floors_ms = {part: self.floor_ms(part) for part in PARTS}
        columns = [
            (part, self.work[part], floors_ms[part], self.times_ms[part], self.peak_bytes[part])
            for part in PARTS
        ]
        step_ms, floor_ms = sum(self.times_ms.values()), sum(floors_ms.values())
        whole = ('step', total(self.work), floor_ms, step_ms, max(self.peak_bytes.values()))
        for part, work, floor, milliseconds, num_bytes in (*columns, whole):
            cells.append(
                (
                    part,
                    f'{work.flops / 1e9:.1f}',
                    f'{work.intensity:.0f}',
                    f'{floor:.2f}',
                    f'{milliseconds:.2f}',
                    f'{100 * floor / milliseconds:.0f} %',
                    f'{num_bytes / 1e6:.0f}',
                )
            )
        return cells

    def about(self) -> str:
        """Describe the peaks of the device and the memory of the weights."""
        peaks = self.peaks
        return (
            f'{peaks.tflops:.3g} TFLOP/s in a product of matrices of side {peaks.matrix_side}, '
            f'{peaks.gigabytes_per_s:.3g} GB/s in a copy; weights of the network: '
            f'{self.weight_bytes / 1e6:.0f} MB'
        )

    def as_json(self) -> dict[str, Any]:
        """Return all figures as plain values."""
        return {
            'peaks': asdict(self.peaks),
            'weight_bytes': self.weight_bytes,
            'parts': {
                part: {
                    'flops': self.work[part].flops,
                    'bytes': self.work[part].num_bytes,
                    'flops_per_byte': self.work[part].intensity,
                    'floor_ms': self.floor_ms(part),
                    'median_ms': self.times_ms[part],
                    'peak_bytes': self.peak_bytes[part],
                }
                for part in PARTS
            },
        }


def analyse(net: VidEoMT, frames: Tensor, repeats: int) -> Analysis:
    """Analyse the step of a network on a batch of frames.

    Args:
        net: network on its device, in its number format.
        frames: input (B, 3, H, W), likewise.
        repeats: number of timed steps.
    """
    height, width = frames.shape[-2:]
    return Analysis(
        measure_peaks(frames.device, frames.dtype),
        count_work(net.config, (height, width), len(frames), frames.dtype),
        time_parts(net, frames, repeats),
        peak_bytes(net, frames),
        weight_bytes(net),
    )
