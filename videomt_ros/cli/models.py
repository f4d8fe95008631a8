"""`videomt models`: the models that can be loaded by name."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videomt_ros.model.config import NetworkConfig
    from videomt_ros.model.presets import Preset

HELP = 'list the models that load by name, or show one in full'

HEADER = ('name', 'backbone', 'task', 'classes', 'test size', 'published', 'from', 'here')
"""Heads of the columns of the table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument('name', nargs='?', help='show this model in full')


def main(args: argparse.Namespace) -> int:
    """Print the table, or the record of one model."""
    from videomt_ros.model.presets import preset_names

    if args.name:
        print_model(args.name)
        return 0
    rows = [HEADER, *map(table_row, preset_names())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        print(
            '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


def print_model(name: str) -> None:
    """Print where a model comes from and every setting of its network."""
    from videomt_ros.model.presets import load_preset

    preset = load_preset(name)
    print(f'name: {preset.name}')
    for key in ('source', 'file', 'converted', 'licence'):
        if getattr(preset, key):
            print(f'{key}: {getattr(preset, key)}')
    if preset.paper_score:
        print(f'published: {_scores(preset)} ({preset.paper_score["benchmark"]})')
    print(f'here: {"yes" if _is_here(preset) else "no"}')
    config = _config(preset)
    if config is None:
        return
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == 'class_names':
            kinds = zip(value, config.thing_classes, strict=True)
            value = ', '.join(name if is_thing else f'{name} (stuff)' for name, is_thing in kinds)
        if field.name not in ('name', 'thing_classes'):
            print(f'{field.name}: {value}')


def table_row(name: str) -> tuple[str, ...]:
    """Format the cells of one model in the order of the header; a damaged model gets a row too."""
    from videomt_ros.model.presets import load_preset
    from videomt_ros.model.weight_files import CheckpointError

    try:
        preset = load_preset(name)
    except CheckpointError:
        return (name, *'?' * (len(HEADER) - 2), 'damaged')
    try:
        config, is_here = _config(preset), 'yes' if _is_here(preset) else 'no'
    except CheckpointError:
        config, is_here = None, 'damaged'
    return (
        preset.name,
        f'{config.family} {preset.size or config.embed_dim}' if config else '?',
        config.task if config else '?',
        str(config.num_classes) if config else '?',
        str(config.test_size) if config else '?',
        _scores(preset) or '-',
        preset.source,
        is_here,
    )


def _config(preset: Preset) -> NetworkConfig | None:
    """Find the configuration of a model; None for a shipped one whose weights are missing."""
    return preset.config() if preset.path is None or preset.path.is_file() else None


def _is_here(preset: Preset) -> bool:
    """Tell whether a model loads without a network."""
    from videomt_ros.model.hub import is_cached

    if preset.path is not None:
        return preset.path.is_file()
    return is_cached(preset.source, preset.file)


def _scores(preset: Preset) -> str:
    return ', '.join(
        f'{key} {value}' for key, value in preset.paper_score.items() if key != 'benchmark'
    )
