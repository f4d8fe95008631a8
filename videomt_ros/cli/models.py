"""`videomt models`: the models that can be loaded by name, grouped by what they are for."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videomt_ros.model.config import NetworkConfig
    from videomt_ros.model.presets import Preset

HELP = 'list the models that load by name, or show one in full'

HEADER = ('name', 'backbone', 'params', 'input', 'paper score', 'FPS', 'licence', 'here')
"""Heads of the columns of the table."""

JOBS = (
    ('YouTube-VIS 2019 val', 'Everyday objects, 40 classes'),
    ('YouTube-VIS 2021 val', 'Everyday objects, 40 classes, more of them in each video'),
    ('YouTube-VIS 2022 long videos val', 'The same objects in long videos, where they come back'),
    ('OVIS val', 'Objects that hide one another, 25 classes of people, animals and vehicles'),
    ('VIPSeg val', 'Every pixel, with an id for each of the things: 58 things, 66 kinds of stuff'),
    ('VSPW val', 'The class of every pixel without ids, 124 classes'),
    ('', 'Drawn shapes, for trials of the software'),
)
"""Benchmarks of `Preset.paper_score` in the order of the table, with what their models are for;
'' is that of models without a benchmark."""

ADVICE = (
    ('objects that are hidden for long', 'lvmt-dinov3-large-ovis'),
    ('everyday objects', 'lvmt-dinov2-large-ytvis2019'),
    ('things and stuff', 'lvmt-dinov3-large-vipseg'),
    ('a class for every pixel', 'lvmt-dinov3-large-vspw'),
    ('the fastest, such as for a CPU', 'videomt-dinov2-small-ytvis2019'),
    ('a small one for objects that hide', 'lvmt-dinov3-small-ovis'),
)
"""Jobs with the model to take for each."""

LEGEND = """\
params: number of parameters. input: short side in pixels to which images are resized. paper score:
in percent, on the benchmark of the group. FPS: images per second, from the papers (H100,
torch.compile, one image at a time). licence: of the weights; ? and DINOv3: not known to us, DINOv3
with an encoder under Meta's DINOv3 License; `videomt models NAME` says more. here: size of the
file, if it is on this machine."""

_MAIN_SCORES = ('AP', 'VPQ', 'mIoU')
"""Scores that models of one benchmark are sorted by."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        'name', nargs='?', help='show this model in full; also a file, or the folder of a run'
    )
    parser.add_argument(
        '--set',
        type=network_setting,
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help='a setting of the network that its file does not tell, such as num_heads=6 or '
        '"class_names=[cat, dog]"; may be repeated',
    )
    parser.add_argument(
        '--save',
        type=Path,
        metavar='FILE',
        help='write the weights with all settings to a file, which ends in .safetensors',
    )


def network_setting(text: str) -> tuple[str, Any]:
    """Parse a setting of a network such as `num_heads=6` as its name and value."""
    import yaml

    from videomt_ros.model.config import NetworkConfig

    name, found, value = text.partition('=')
    if not found:
        raise argparse.ArgumentTypeError(f'expected NAME=VALUE, got {text!r}')
    try:
        NetworkConfig.check_names([name])
        return name, yaml.safe_load(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(
            f'expected NAME=VALUE with a value of YAML, got {text!r}'
        ) from None


def main(args: argparse.Namespace) -> int:
    """Print the table, or the record of one model, or write its weights.

    Raises:
        ValueError: there is no such model, its file tells too little, or its settings are wrong.
    """
    settings = dict(args.set)
    if args.name:
        show_model(args.name, settings, args.save)
        return 0
    if settings or args.save:
        raise ValueError('--set and --save are for one model: name it, or give its file.')
    print('Which to take:')
    width = max(len(job) for job, _ in ADVICE)
    for job, name in ADVICE:
        print(f'  {job.ljust(width)}  {name}')
    print(f'\n{LEGEND}\n')
    groups = group_models()
    rows = [row for _, members in groups for row in members]
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
    print(_line(HEADER, widths))
    for heading, members in groups:
        print(f'\n# {heading}')
        for row in members:
            print(_line(row, widths))
    return 0


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return '  '.join(map(str.ljust, row, widths)).rstrip()


def group_models() -> list[tuple[str, list[tuple[str, ...]]]]:
    """Group the rows of all models by benchmark, in each group the best score first.

    Returns:
        Pairs of a heading and the rows below it. Damaged presets come last.
    """
    from videomt_ros.model.presets import load_preset, preset_names
    from videomt_ros.model.weight_files import CheckpointError

    members: dict[str, list[tuple[float, tuple[str, ...]]]] = {name: [] for name, _ in JOBS}
    damaged = []
    for name in preset_names():
        try:
            preset = load_preset(name)
        except CheckpointError:
            damaged.append((name, *'?' * (len(HEADER) - 2), 'damaged'))
            continue
        scores = preset.paper_score
        best = next((float(scores[key]) for key in _MAIN_SCORES if key in scores), 0.0)
        members.setdefault(scores.get('benchmark', ''), []).append((best, table_row(preset)))
    jobs = dict(JOBS)
    groups = []
    for benchmark, rated in members.items():
        heading = ': '.join(text for text in (jobs.get(benchmark), benchmark) if text)
        rated.sort(key=lambda entry: -entry[0])  # those of the same score stay in order of names
        groups.append((heading, [row for _, row in rated]))
    return [(heading, rows) for heading, rows in [*groups, ('Damaged presets', damaged)] if rows]


def show_model(name: str, settings: dict[str, Any], save: Path | None) -> None:
    """Print what is known of a model, and write its weights if a path is given."""
    from videomt_ros.model.presets import Preset
    from videomt_ros.model.sources import find_source

    found = find_source(name)
    if isinstance(found, Preset) and not settings and save is None:
        print_preset(found)
        return
    from videomt_ros.model.checkpoint import load_config, load_model, save_model

    if save is None:
        config = load_config(name, **settings)
    else:
        if save.suffix != '.safetensors':
            raise ValueError(f'Expected --save with a file that ends in .safetensors, got {save}.')
        net = load_model(name, **settings)
        save_model(net, save)
        config = net.config
    print(f'name: {config.name}')
    print(f'source: {found.name if isinstance(found, Preset) else found}')
    _print_config(config)
    if save is not None:
        print(f'Written: {save}')


def print_preset(preset: Preset) -> None:
    """Print where a model comes from and every setting of its network."""
    from videomt_ros.model.sources import find_preset_file

    print(f'name: {preset.name}')
    for key in ('source', 'file', 'converted', 'licence'):
        if getattr(preset, key):
            print(f'{key}: {getattr(preset, key)}')
    if preset.paper_score:
        print(f'published: {_scores(preset)} ({preset.paper_score["benchmark"]})')
    if preset.fps:
        print(f'fps: {preset.fps} (from the papers: H100, torch.compile, one image at a time)')
    path = find_preset_file(preset)
    if preset.parameters:
        print(f'parameters: {preset.parameters}')
    if path or preset.parameters:
        size = _file_size(path) if path else f'about {_bytes(4 * preset.parameters)} to download'
        print(f'size: {size}')
    print(f'here: {path or "no"}')
    config = _config(preset)
    if config is not None:
        _print_config(config)


def _print_config(config: NetworkConfig) -> None:
    """Print every setting of a network, each class with its kind."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == 'class_names':
            kinds = zip(value, config.thing_classes, strict=True)
            value = ', '.join(name if is_thing else f'{name} (stuff)' for name, is_thing in kinds)
        if field.name not in ('name', 'thing_classes'):
            print(f'{field.name}: {value}')


def table_row(preset: Preset) -> tuple[str, ...]:
    """Format the cells of one model in the order of the header; a damaged file gets a row too."""
    from videomt_ros.model.sources import find_preset_file
    from videomt_ros.model.weight_files import CheckpointError

    path = find_preset_file(preset)
    here = _file_size(path) if path else 'no'
    try:
        config = _config(preset)
    except CheckpointError:
        config, here = None, 'damaged'
    return (
        preset.name,
        f'{config.family} {preset.size[:1].upper() or config.embed_dim}' if config else '?',
        _millions(preset.parameters or (_count_parameters(path) if path and config else 0)),
        str(config.test_size) if config else '?',
        _scores(preset) or '-',
        str(preset.fps or '-'),
        _short_licence(preset.licence),
        here,
    )


def _config(preset: Preset) -> NetworkConfig | None:
    """Find the configuration of a model; None for a shipped one whose weights are missing."""
    return preset.config() if preset.path is None or preset.path.is_file() else None


def _file_size(path: Path) -> str:
    """Format the size of a file or folder, such as `97 MB` or `1.4 GB`."""
    files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]
    return _bytes(sum(each.stat().st_size for each in files))


def _bytes(size: int) -> str:
    """Format a number of bytes."""
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.0f} MB'


def _count_parameters(path: Path) -> int:
    """Count the parameters in a shipped file from its header; a few averages count with them."""
    from safetensors import safe_open

    with safe_open(path, 'numpy') as file:
        names = list(file.keys())
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def _millions(parameters: int) -> str:
    """Format a number of parameters, such as `24 M` or `1.8 M`; 0 is not known."""
    millions = parameters / 1e6
    return (f'{millions:.0f} M' if millions >= 10 else f'{millions:.1f} M') if parameters else '-'


def _short_licence(licence: str) -> str:
    """Shorten a licence to what a user asks first: may I use it?"""
    if 'DINOv3' in licence:
        return 'DINOv3'
    return '?' if 'not seen' in licence else licence.removesuffix('-2.0')


def _scores(preset: Preset) -> str:
    return ', '.join(
        f'{key} {value}' for key, value in preset.paper_score.items() if key != 'benchmark'
    )
