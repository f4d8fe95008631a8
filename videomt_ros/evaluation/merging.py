"""Joins the shards of an evaluation that processes made which knew nothing of each other.

    OUT/shard-2-of-8/              folder as in `evaluation.run_folder`, with every 8th video
    OUT/shard-2-of-8/shard.json    which shard it is, and how it was run; there from the start

Figures are computed here from the results of all videos, so they are those of one process. Nothing
here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.json_files import load_json, write_json
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.finishing import finish
from videomt_ros.evaluation.run_folder import (
    MODES,
    RunFolder,
    ShardNumber,
    dataset_request,
    differences,
)

_RECORD = 'shard.json'
_MAX_COMMANDS = 3
"""Number of commands that an error on missing shards repeats."""


@dataclass(frozen=True)
class ShardFolder:
    """The folder of one shard."""

    path: Path
    number: ShardNumber
    source: Mapping[str, Any]
    """How its data set was opened, as plain JSON values."""
    run: Mapping[str, Any]
    """Facts of its run; see `run` in `metrics.json`."""
    request: Mapping[str, Any]
    """Everything that decides its results."""


def write_record(
    folder: Path, number: ShardNumber, source: Mapping[str, Any], run: Mapping[str, Any]
) -> None:
    """Write down in the folder of a shard which one it is."""
    content = {'shard': number.index, 'of': number.count, 'source': source, 'run': run}
    write_json(folder / _RECORD, content, indent=1)


def find_shards(folder: Path) -> list[ShardFolder]:
    """Find the shards in a folder, or one or two folders deeper.

    Returns:
        The shards of one evaluation by number; one that was run twice in several folders is there
        more than once.

    Raises:
        ValueError: there are none, one cannot be read, or they belong to different evaluations.
    """
    if not folder.is_dir():
        raise ValueError(f'Expected a folder of shards, but {folder} is none.')
    paths = [path for depth in ('', '*/', '*/*/') for path in folder.glob(f'{depth}{_RECORD}')]
    if not paths:
        raise ValueError(
            f'Expected shards in {folder}, got none. `videomt evaluate ... --shard 1/4 --out '
            f'{folder}` makes the first of four; 2/4 to 4/4 follow, here or on other machines.'
        )
    shards = [_read(path.parent) for path in sorted(paths)]
    shards.sort(key=lambda shard: (shard.number.count, shard.number.index, str(shard.path)))
    _check_alike(shards)
    return shards


def merge_shards(
    shards: Sequence[ShardFolder], dataset: Dataset, out: Path, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the results, figures and report of a whole evaluation.

    Args:
        shards: what `find_shards` has returned; the folders are not changed.
        dataset: the data set that they evaluated.
        out: folder for everything that is written; earlier results of these shards are replaced.
        about: further facts of the run for `metrics.json`.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: a shard is missing or not finished, or the data set is another one; says which,
            and which command repeats it.
    """
    run, request = shards[0].run, shards[0].request
    videos = dataset.videos[: run['limit']]
    modes = [mode for mode in MODES if mode in run['modes']]
    if found := differences(request, {**request, **dataset_request(dataset)}):
        raise ValueError(
            f'The data set is not that of the shards: {"; ".join(found)}. Name theirs, such as by '
            '--root or --bags, or run them again.'
        )
    family = family_of(dataset.family)
    folders = {shard.path: RunFolder(shard.path, family) for shard in shards}
    chosen: dict[tuple[int, str], RunFolder] = {}
    lost: dict[int, int] = {}
    for index in range(1, shards[0].number.count + 1):
        mine = [folders[shard.path] for shard in shards if shard.number.index == index]
        for position in ShardNumber(index, shards[0].number.count).positions(len(videos)):
            found_in = {mode: _best(mine, mode, position) for mode in modes}
            if None in found_in.values():
                lost[index] = lost.get(index, 0) + 1
            chosen |= {(position, mode): one for mode, one in found_in.items() if one}
    _refuse_lost(shards, lost, len(videos))
    with closing(RunFolder(out, family)) as folder:
        folder.start(request, resume=True)
        for (position, mode), source in chosen.items():
            folder.adopt(mode, position, videos[position], source)
        whole = {**run, **_together(shards), **about}
        return finish(dataset, videos, modes, folder, whole, run['paper'])


def _read(folder: Path) -> ShardFolder:
    """Read the record and the request of a shard.

    Raises:
        ValueError: they cannot be used.
    """
    content, request = load_json(folder / _RECORD), load_json(folder / 'run.json')
    try:
        number = ShardNumber(content['shard'], content['of'])
        return ShardFolder(folder, number, content['source'], content['run'], dict(request))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{folder / _RECORD} is no record of a shard ({type(error).__name__}: {error}). Move '
            f'{folder} away, and run its shard again.'
        ) from error


def _check_alike(shards: Sequence[ShardFolder]) -> None:
    """Raise ValueError if shards belong to different evaluations; says what differs."""
    first = shards[0]
    counts = sorted({shard.number.count for shard in shards})
    if len(counts) > 1:
        many = '; '.join(
            f'of {count}: {", ".join(str(s.path) for s in shards if s.number.count == count)}'
            for count in counts
        )
        raise ValueError(
            f'Expected the shards of one evaluation, got shards of {counts[0]} and of '
            f'{counts[1]} ({many}). Move those of all but one away.'
        )
    faults = []
    for shard in shards[1:]:
        earlier = {**first.request, 'limit': first.run.get('limit')}
        if found := differences(earlier, {**shard.request, 'limit': shard.run.get('limit')}):
            faults.append(f'{shard.path} differs from {first.path}: {"; ".join(found)}')
    if faults:
        raise ValueError(
            f'Expected shards of one evaluation. {". ".join(faults)}. Run those again that are '
            'wrong, or move them away.'
        )


def _best(folders: Sequence[RunFolder], mode: str, position: int) -> RunFolder | None:
    """Choose the folder with the result of a video, or else one in which it has failed."""
    marked = [folder for folder in folders if folder.marker(mode, position) is not None]
    finished = [folder for folder in marked if folder.is_finished(mode, position)]
    return next(iter([*finished, *marked]), None)


def _refuse_lost(shards: Sequence[ShardFolder], lost: Mapping[int, int], num_videos: int) -> None:
    """Raise ValueError if videos of a shard have no outcome.

    Args:
        shards: the shards that were found.
        lost: number of such videos by the number of the shard; empty if there are none.
        num_videos: number of videos of the data set.
    """
    if not lost:
        return
    found = {shard.number.index: shard for shard in shards}
    parts, commands = [], []
    for index, num_lost in lost.items():
        number = ShardNumber(index, shards[0].number.count)
        if index in found:
            mine = len(number.positions(num_videos))
            parts.append(f'{number} is not finished ({num_lost} of {mine} videos missing)')
        else:
            parts.append(f'{number} is missing')
        command = found.get(index, shards[0]).run.get('command', 'videomt evaluate --shard 1/1')
        commands.append(f'`{repeated(command, number)}`')
    more = len(commands) - _MAX_COMMANDS
    raise ValueError(
        f'Expected {shards[0].number.count} finished shards. {"; ".join(parts)}. Run '
        f'{" and ".join(commands[:_MAX_COMMANDS])}'
        f'{f" and so on for {more} more" if more > 0 else ""}, then merge again.'
    )


def repeated(command: str, number: ShardNumber) -> str:
    """Write the command that goes on with a shard, from that of any shard.

    >>> repeated('videomt evaluate --shard 1/3 --out o', ShardNumber(2, 3))
    'videomt evaluate --shard 2/3 --out o --resume'
    """
    command = re.sub(r'(--shard[ =])\S+', rf'\g<1>{number}', command)
    return command if '--resume' in command.split() else f'{command} --resume'


def _together(shards: Sequence[ShardFolder]) -> dict[str, Any]:
    """Sum up what differs between the runs of shards; of several runs of one, the last counts."""
    runs = list({shard.number.index: shard.run for shard in shards}.values())
    hardware = dict.fromkeys(run['hardware'] for run in runs if 'hardware' in run)
    return {
        'shards': shards[0].number.count,
        'num_resumed': 0,
        'processes': sum(run['processes'] for run in runs),
        'predict_s': round(sum(run.get('predict_s', 0.0) for run in runs), 3),
        'peak_memory_mb': max(run.get('peak_memory_mb', 0.0) for run in runs),
        **({'hardware': '; '.join(hardware)} if hardware else {}),
    }
