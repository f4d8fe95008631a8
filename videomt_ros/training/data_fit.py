"""How the data of a run fit its settings, and those that it was started with.

Nothing here reads images; masks are read only where annotations alone don't tell what is in view.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch

from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.training.data import Mixture
from videomt_ros.training.labelled_clips import LabelledVideos
from videomt_ros.training.run_settings import Phase, TrainSettings
from videomt_ros.training.scene_clips import MOST_SHAPES

KEY = 'data'
"""Name of what `describe_data` returns in a checkpoint."""
_MORE_QUERIES = (
    'The others of such a clip are not learnt. Raise network.num_queries, which weights of '
    'init_from have to have too, or take shorter clips or fewer such videos.'
)


def misfits(settings: TrainSettings, mixture: Mixture) -> Iterator[str]:
    """Say what of the data does not fit the settings, though a run is possible."""
    queries = settings.network.num_queries
    for number, table in mixture.scenes.items():
        # The table has one entry for each class, shapes first.
        most = MOST_SHAPES + sum(k is not None for k in table[len(CLASS_NAMES) :])
        if most > queries:
            yield (
                f'data.{number} (synthetic): scenes show up to {most} objects, more than the '
                f'{queries} queries of the network. {_MORE_QUERIES}'
            )
    for number, videos in mixture.videos.items():
        yield from _crowded(videos, settings.phases, queries)
        yield from _short(videos, settings.phases, settings.data[number].dataset)


def _crowded(videos: LabelledVideos, phases: Sequence[Phase], queries: int) -> Iterator[str]:
    """Say how many videos show more objects in a clip than there are queries."""
    counts = {}
    for video in videos.videos:
        length = len(video.image_paths)
        if videos.truth.most_objects(video.video_id, length) <= queries:
            continue
        visible = videos.truth.visible(video.video_id, length)
        counts[video.name] = max(most_in_a_clip(visible, phase) for phase in phases)
    over = {name: count for name, count in counts.items() if count > queries}
    if over:
        worst = max(over, key=lambda name: over[name])
        yield (
            f'{videos.name}: {len(over)} of {len(videos.videos)} videos show more objects in a '
            f'clip than the {queries} queries of the network, up to {over[worst]} ({worst}). '
            f'{_MORE_QUERIES}'
        )


def most_in_a_clip(visible: Sequence[Set[Hashable]], phase: Phase) -> int:
    """Return the largest number of objects of all clips of a video.

    Args:
        visible: keys of the objects that each frame shows.
        phase: length and strides of the clips. For a `frame_range`, whose clips are drawn at
            random, all objects in the range are counted.
    """
    if phase.frame_range is not None:
        length, strides = 2 * phase.frame_range + 1, range(1, 2)
    else:
        length = phase.clip_frames
        fitting = (len(visible) - 1) // max(1, length - 1)
        strides = range(1, max(1, min(phase.max_stride, fitting)) + 1)
    clips = (
        visible[start : start + stride * length : stride]
        for stride in strides
        for start in range(max(1, len(visible) - stride * (length - 1)))
    )
    return max(len(set().union(*clip)) for clip in clips)


def _short(videos: LabelledVideos, phases: Sequence[Phase], dataset: str) -> Iterator[str]:
    """Say how many videos have fewer frames than a clip."""
    longest = max(range(len(phases)), key=lambda number: phases[number].clip_frames)
    wanted = phases[longest].clip_frames
    lengths = [len(video.image_paths) for video in videos.videos]
    short = [length for length in lengths if length < wanted]
    if dataset.startswith('coco') or not short:
        return  # images of COCO are meant to become clips
    how = 'played to and fro'
    if phases[longest].frame_range is not None:
        how = 'repeated in part'
    if 1 in short:
        how += ', and single images are turned a little from frame to frame'
    yield (
        f'{videos.name}: {len(short)} of {len(lengths)} videos have fewer frames than '
        f'phases.{longest}.clip_frames={wanted}, the shortest {min(short)}. They are {how}: '
        'shorter clips would show what they hold.'
    )


def describe_data(mixture: Mixture) -> dict[str, dict[str, Any]]:
    """Describe the annotated videos of a run, for a checkpoint.

    Returns:
        By the name of the setting, such as `data.0`: the number of videos, a digest of their
        names, sizes and frames, the size of the annotation files, and the classes. Where the
        files lie does not count.
    """
    return {
        f'data.{number}': {
            'videos': len(source.videos),
            'digest': _digest(source),
            'bytes': source.num_bytes,
            'classes': dict(source.classes),
        }
        for number, source in mixture.videos.items()
    }


def _digest(source: LabelledVideos) -> str:
    content = [[v.video_id, v.name, list(v.size), list(v.frame_names)] for v in source.videos]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def changes_since(path: Path, mixture: Mixture) -> Iterator[str]:
    """Say how the data differ from those of the run that a checkpoint is of.

    Args:
        path: an undamaged checkpoint, whose settings are those of the run.
        mixture: the data now.

    Raises:
        ValueError: the classes differ, so that what was learnt means something else.
    """
    saved = torch.load(path, map_location='cpu', weights_only=True, mmap=True).get(KEY, {})
    for where, now in describe_data(mixture).items():
        if (then := saved.get(where)) is None:
            continue
        if changed := list(_changed_classes(then['classes'], now['classes'])):
            raise ValueError(
                f'{path} is of a run whose {where} has other classes: {", ".join(changed)}. '
                'Resume with the data that it was started with, or choose another folder with '
                'out=...'
            )
        if then['videos'] != now['videos']:
            what = f'{then["videos"]} videos then, {now["videos"]} now'
        elif then['digest'] != now['digest']:
            what = f'as many videos, {now["videos"]}, but with other names, sizes or frames'
        elif then['bytes'] != now['bytes']:
            what = f'annotation files of {then["bytes"]:,} bytes then, {now["bytes"]:,} now'
        else:
            continue
        yield (
            f'{where} is not what the run was started with: {what}. It goes on with the data as '
            'they are now, and its result is that of neither alone.'
        )


def _changed_classes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Say how each category changed that is another class of the network, or none, by now."""
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            yield f'{name} is gone'
        elif name not in then:
            yield f'{name} is new'
        elif then[name] != now[name]:
            yield f'{name} was {then[name]} and is {now[name]}'
