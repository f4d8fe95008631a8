"""Where the work, the time and the memory of a step go, beside what the machine allows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from videomt_ros.model import VideoNetwork
from videomt_ros.speed.memory import peak_bytes, weight_bytes
from videomt_ros.speed.parts import LATERAL, PARTS, PRODUCT, UPSCALE, time_parts
from videomt_ros.speed.roofline import Peaks, measure_peaks
from videomt_ros.speed.work import Work, count_work, total


@dataclass(frozen=True)
class Part:
    """One part of a step, as it was measured."""

    name: str
    work: Work
    floor_ms: float
    """Time of the part at the peaks of this device."""
    median_ms: float
    peak_bytes: int
    """Largest memory during the part, beyond the weights and the input."""


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

    def measured(self) -> list[Part]:
        """List the parts; those that run in turns with another one are joined with it."""
        # `cpu_masks` upscales and multiplies one strip of the image after the other, and does not
        # call the module whose hooks tell when upscaling ends.
        joined = not self.times_ms[UPSCALE]
        names = [
            part
            for part in PARTS
            if not (joined and part == UPSCALE) and (part != LATERAL or self.work[part].flops)
        ]
        return [
            self._part((UPSCALE, part) if joined and part == PRODUCT else (part,))
            for part in names
        ]

    def _part(self, names: tuple[str, ...]) -> Part:
        work = total({name: self.work[name] for name in names})
        return Part(
            ', '.join(names),
            work,
            work.floor_ms(self.peaks.tflops, self.peaks.gigabytes_per_s),
            sum(self.times_ms[name] for name in names),
            max(self.peak_bytes[name] for name in names),
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Build a table with a row for each part, and one for the step."""
        cells: list[tuple[str, ...]] = [
            ('part of a step, eager', 'GFLOP', 'FLOP/byte', 'floor, ms', 'ms', 'share', 'peak, MB')
        ]
        parts = self.measured()
        step = Part(
            'step',
            total(self.work),
            sum(part.floor_ms for part in parts),
            sum(part.median_ms for part in parts),
            max(part.peak_bytes for part in parts),
        )
        for part in (*parts, step):
            cells.append(
                (
                    part.name,
                    f'{part.work.flops / 1e9:.1f}',
                    f'{part.work.intensity:.0f}',
                    f'{part.floor_ms:.2f}',
                    f'{part.median_ms:.2f}',
                    f'{100 * part.floor_ms / part.median_ms:.0f} %',
                    f'{part.peak_bytes / 1e6:.0f}',
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
                part.name: {
                    'flops': part.work.flops,
                    'bytes': part.work.num_bytes,
                    'flops_per_byte': part.work.intensity,
                    'floor_ms': part.floor_ms,
                    'median_ms': part.median_ms,
                    'peak_bytes': part.peak_bytes,
                }
                for part in self.measured()
            },
        }


def analyse(net: VideoNetwork, frames: Tensor, repeats: int) -> Analysis:
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
