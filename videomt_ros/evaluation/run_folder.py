"""Folder of an evaluation, in which finished videos survive if the process is killed.

    OUT/run.json                 request of the run; a resumed run must have the same
    OUT/parts/MODE/00012.json    marks video 12 as finished or failed; written last, in one step
    OUT/parts/MODE/00012/        masks of video 12, for YouTube-VIS
    OUT/parts/lock               locked while a run works here
    OUT/MODE/...                 result files, as the benchmark's server takes them
    OUT/metrics.json, OUT/report.html

Several processes may share the folder; each video belongs to one of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.datasets.json_files import write_json
from videomt_ros.evaluation.families.family import Family, StoredVideo

ModeName = Literal['published', 'live']
MODES: tuple[ModeName, ...] = ('published', 'live')
"""The modes of an evaluation, in the order of tables; see `evaluation.modes`."""
_FORMAT = 1
"""Version of the format of the files in `parts`."""
_OURS = ('run.json', 'metrics.json', 'parts', *MODES)
_DIGESTS = {'videos': ' (digest of videos and classes)', 'weights': ' (digest of the weights)'}
"""Explanation of the fields of a request that people cannot read."""


@dataclass(frozen=True)
class ShardNumber:
    """One of the shards into which a user cuts an evaluation; each has a folder of its own."""

    index: int
    """Number of the shard, from 1 to `count`."""
    count: int
    """Number of all shards."""

    def __str__(self) -> str:
        return f'{self.index}/{self.count}'

    @property
    def folder_name(self) -> str:
        """Name of the folder of its results."""
        return f'shard-{self.index}-of-{self.count}'

    def positions(self, num_videos: int) -> range:
        """Return the positions of its videos in the data set."""
        return range(self.index - 1, num_videos, self.count)


class RunFolder:
    """Stores the finished videos of one evaluation."""

    def __init__(self, out: Path, family: Family) -> None:
        self.out = out
        self._family = family
        self._lock: IO[bytes] | None = None

    @property
    def parts(self) -> Path:
        """Folder of markers, times and results of single videos, and of temporary files."""
        return self.out / 'parts'

    def start(self, request: Mapping[str, Any], resume: bool) -> None:
        """Start or resume a run; one process calls this before the others begin.

        Args:
            request: everything that decides the figures, as plain JSON values.
            resume: go on with what is there, for the same request; the folder may be empty.

        Raises:
            ValueError: the folder holds results and resume was not asked for, or the results of
                another request, or another run is still at work in it.
        """
        request = self.check(request, resume)
        self.parts.mkdir(parents=True, exist_ok=True)
        self._claim()
        write_json(self.out / 'run.json', request)

    def check(self, request: Mapping[str, Any], resume: bool) -> dict[str, Any]:
        """Check that a run may start here, and write nothing; see `start`.

        Returns:
            What run.json is to hold.
        """
        found = [name for name in _OURS if (self.out / name).exists()]
        path = self.out / 'run.json'
        if found and not resume:
            raise ValueError(
                f'{self.out} holds results already ({", ".join(found)}). Go on with them by '
                '--resume, or name another folder with --out.'
            )
        # Through JSON, since tuples become lists in the file.
        wanted: dict[str, Any] = json.loads(json.dumps({'format': _FORMAT, **request}))
        if found and not path.exists():
            raise ValueError(
                f'{self.out} holds results ({", ".join(found)}), but no run.json that says of '
                'what. Name another folder with --out.'
            )
        if path.exists():
            _check_same(path, wanted)
        return wanted

    def close(self) -> None:
        """Unlock the folder for other runs."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self) -> None:
        """Lock the folder; the lock ends with the process, even if it is killed."""
        self._lock = (self.parts / 'lock').open('wb')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ValueError(
                f'Another run is at work in {self.out}. Wait for its end, or name another folder '
                'with --out.'
            ) from error
        except OSError:
            pass  # some file systems have no locks; then nothing guards the folder

    def marker(self, mode: str, position: int) -> dict[str, Any] | None:
        """Read the marker of the video at a position of the data set; None if it has none yet."""
        path = self._marker_path(mode, position)
        if not path.exists():
            return None
        return json.loads(path.read_text(encoding='utf-8'))

    def is_finished(self, mode: str, position: int) -> bool:
        """Tell whether a video was predicted without failure; one that failed is tried again."""
        marker = self.marker(mode, position)
        return marker is not None and marker['error'] is None

    def workplace(self, mode: str, position: int) -> Path:
        """Return the folder in which results are made; leftovers of a killed run are removed."""
        folder = self.parts / mode / f'{position:05d}.unfinished'
        if folder.exists():
            shutil.rmtree(folder)
        return folder

    def finish(
        self, mode: str, position: int, video: Video, content: Mapping[str, Any], num_frames: int
    ) -> None:
        """Move the results of a video to their place, then mark it as finished."""
        self._marker_path(mode, position).unlink(missing_ok=True)
        target = self.results_folder(mode, position, video)
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.parts / mode / f'{position:05d}.unfinished').replace(target)
        self._mark(mode, position, video, num_frames=num_frames, error=None, content=content)

    def fail(self, mode: str, position: int, video: Video, error: str) -> None:
        """Mark a video as failed, and remove its results."""
        shutil.rmtree(self.workplace(mode, position), ignore_errors=True)
        target = self.results_folder(mode, position, video)
        shutil.rmtree(target, ignore_errors=True)
        self._mark(mode, position, video, num_frames=0, error=error, content={})

    def adopt(self, mode: str, position: int, video: Video, other: RunFolder) -> None:
        """Take over the results of a video from another folder, which keeps them."""
        marker = other.marker(mode, position)
        assert marker is not None, 'its results are there'
        self._marker_path(mode, position).unlink(missing_ok=True)
        target = self.results_folder(mode, position, video)
        shutil.rmtree(target, ignore_errors=True)
        if marker['error'] is None:
            source = other.results_folder(mode, position, video)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target, copy_function=_link_or_copy)
        times = other._times_path(position)
        if times.exists():
            write_json(self._times_path(position), json.loads(times.read_text(encoding='utf-8')))
        write_json(self._marker_path(mode, position), marker)

    def notes(self, mode: str, position: int) -> list[str]:
        """Return the notes that a video had when it was predicted, in whatever process."""
        return list((self.marker(mode, position) or {}).get('notes', ()))

    def results_folder(self, mode: str, position: int, video: Video) -> Path:
        """Return the folder of the results of a finished video."""
        part = self.parts / mode / f'{position:05d}'
        return self._family.video_folder(self.out / mode, part, video)

    def write_result_files(self, mode: str, videos: Sequence[Video]) -> Path:
        """Complete the result files of a mode with all of these videos that are finished.

        Returns:
            What `score_files` takes.
        """
        target = self.out / mode
        target.mkdir(parents=True, exist_ok=True)
        return self._family.write_files(
            target,
            (
                StoredVideo(video, self.results_folder(mode, position, video), marker['content'])
                for position, video in enumerate(videos)
                if (marker := self.marker(mode, position)) and marker['error'] is None
            ),
        )

    def note_times(self, position: int, stages: Mapping[str, Sequence[float]]) -> None:
        """Store the milliseconds that each stage took in each frame of a video."""
        rounded = {name: [round(value, 3) for value in stages[name]] for name in stages}
        write_json(self._times_path(position), rounded)

    def times(self) -> Iterator[dict[str, list[float]]]:
        """Yield what `note_times` has stored, video by video."""
        for path in sorted((self.parts / 'times').glob('*.json')):
            yield json.loads(path.read_text(encoding='utf-8'))

    def _times_path(self, position: int) -> Path:
        return self.parts / 'times' / f'{position:05d}.json'

    def _marker_path(self, mode: str, position: int) -> Path:
        return self.parts / mode / f'{position:05d}.json'

    def _mark(self, mode: str, position: int, video: Video, **fields: Any) -> None:
        notes = list(getattr(video, 'notes', ()))
        marker = {'video_id': video.video_id, 'name': video.name, 'notes': notes, **fields}
        write_json(self._marker_path(mode, position), marker)


def dataset_request(dataset: Dataset) -> dict[str, Any]:
    """Return what a request says of a data set: its videos and classes, not where they lie.

    The range of grey values, too, if one was given.
    """
    content = [
        [[v.video_id, v.name, list(v.size), list(v.frame_names)] for v in dataset.videos],
        [[c.category_id, c.name, c.is_thing] for c in dataset.categories],
    ]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    grey = {} if dataset.grey_range is None else {'grey_range': list(dataset.grey_range)}
    return {'dataset': dataset.name, 'split': dataset.split, 'videos': digest, **grey}


def _check_same(path: Path, request: Mapping[str, Any]) -> None:
    """Raise ValueError if the folder belongs to another request."""
    try:
        earlier = json.loads(path.read_text(encoding='utf-8'))
        assert isinstance(earlier, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise ValueError(
            f'{path} cannot be read ({error}). Name another folder with --out.'
        ) from error
    if found := differences(earlier, request):
        raise ValueError(
            f'{path.parent} holds the results of another run: {"; ".join(found)}. '
            'Ask for the same, or name another folder with --out.'
        )


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in which fields two requests differ."""
    return [
        f'{key} was {_shown(earlier.get(key))} and is {_shown(now.get(key))}'
        f'{_DIGESTS.get(key, "")}'
        for key in sorted({*earlier, *now})
        if earlier.get(key) != now.get(key)
    ]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def _link_or_copy(source: str, target: str) -> None:
    """Give a file a second name, or where that cannot be, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
