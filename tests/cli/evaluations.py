"""What the tests of `videomt evaluate` share: data sets, command lines and result files."""

from __future__ import annotations

from pathlib import Path

from videomt_ros.datasets.synthetic.writing import write_dataset

NAMES = {'ytvis2019': 'ytvis', 'vipseg': 'vipseg', 'vspw': 'vspw'}
"""Data sets of each family, and the formats in which they are written."""


def write_roots(home: Path, num_videos: int, num_frames: int) -> dict[str, Path]:
    """Write the same scenes as three data sets, and return their folders by name."""
    roots = {name: home / name for name in NAMES}
    for name, root in roots.items():
        write_dataset(NAMES[name], root, num_videos, num_frames)
    return roots


def arguments(name, root, out, *more):
    return [
        *('evaluate', '--model', 'demo', '--dataset', name, '--root', str(root)),
        *('--out', str(out), '--device', 'cpu', *more),
    ]


def result_files(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for mode in ('published', 'live')
        for path in sorted((out / mode).rglob('*'))
        if path.is_file()
    }
