"""The folder of an evaluation: finished videos survive whatever kills the process.

    OUT/run.json                 what was asked for; a resumed run must ask for the same
    OUT/parts/MODE/00012.json    video 12 is finished, or failed; written last, in one step
    OUT/parts/MODE/00012/        its masks, for YouTube-VIS
    OUT/parts/lock               locked by a run as long as it works here
    OUT/MODE/...                 result files, as the benchmark's server takes them
    OUT/metrics.json, OUT/report.html

Several processes may share the folder; each video belongs to one of them.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from videomt_ros.datasets.dataset import Video
from videomt_ros.datasets.json_files import write_json
from videomt_ros.evaluation.families.family import Family, StoredVideo

ModeName = Literal['published', 'live']
MODES: tuple[ModeName, ...] = ('published', 'live')
"""The modes of an evaluation, in the order of tables; see `evaluation.modes`."""
_FORMAT = 1
"""Of the files in `parts`; another version of this package may write them otherwise."""
_OURS = ('run.json', 'metrics.json', 'parts', *MODES)


class RunFolder:
    """Finished videos of one evaluation."""

    def __init__(self, out: Path, family: Family) -> None:
        self.out = out
        self._family = family
        self._lock: IO[bytes] | None = None

    @property
    def scratch(self) -> Path:
        """Folder for files that vanish with the process."""
        return self.out / 'parts'

    def start(self, request: Mapping[str, Any], resume: bool) -> None:
        """Begin, or go on; to be called by one process, before the others begin.

        Args:
            request: all that decides the figures, as plain values of JSON.
            resume: go on with what is there; the request must be the same. An empty folder is
                fine too.

        Raises:
            ValueError: the folder holds results and resume was not asked for, or the results of
                another request, or another run is still at work in it.
        """
        found = [name for name in _OURS if (self.out / name).exists()]
        path = self.out / 'run.json'
        if found and not resume:
            raise ValueError(
                f'{self.out} holds results already ({", ".join(found)}). Go on with them by '
                '--resume, or name another folder with --out.'
            )
        # Through JSON, lest tuples differ from the lists that they become.
        request = json.loads(json.dumps({'format': _FORMAT, **request}))
        if found and not path.exists():
            raise ValueError(
                f'{self.out} holds results ({", ".join(found)}), but no run.json that says of '
                'what. Name another folder with --out.'
            )
        if path.exists():
            _check_same(path, request)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._claim()
        write_json(path, request)

    def close(self) -> None:
        """Leave the folder to other runs."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self) -> None:
        """Lock the folder; the lock of a process that is killed goes with it."""
        self._lock = (self.scratch / 'lock').open('wb')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ValueError(
                f'Another run is at work in {self.out}. Wait for its end, or name another folder '
                'with --out.'
            ) from error
        except OSError:
            pass  # a file system without locks: then it is up to the user

    def marker(self, mode: str, position: int) -> dict[str, Any] | None:
        """What is noted of a video, by its position in the data set; None: not finished."""
        path = self._marker_path(mode, position)
        if not path.exists():
            return None
        return json.loads(path.read_text(encoding='utf-8'))

    def is_finished(self, mode: str, position: int) -> bool:
        """Whether a video was predicted and did not fail; one that failed is tried again."""
        marker = self.marker(mode, position)
        return marker is not None and marker['error'] is None

    def workplace(self, mode: str, position: int) -> Path:
        """Where the results of a video are made; what a killed process left there is removed."""
        folder = self.scratch / mode / f'{position:05d}.unfinished'
        if folder.exists():
            shutil.rmtree(folder)
        return folder

    def finish(
        self, mode: str, position: int, video: Video, content: Mapping[str, Any], num_frames: int
    ) -> None:
        """Put the results of a video in their place, then mark it as finished."""
        self._marker_path(mode, position).unlink(missing_ok=True)
        target = self.results_folder(mode, position, video)
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.scratch / mode / f'{position:05d}.unfinished').replace(target)
        self._mark(mode, position, video, num_frames=num_frames, error=None, content=content)

    def fail(self, mode: str, position: int, video: Video, error: str) -> None:
        """Note that a video has no results, and why."""
        shutil.rmtree(self.workplace(mode, position), ignore_errors=True)
        target = self.results_folder(mode, position, video)
        shutil.rmtree(target, ignore_errors=True)
        self._mark(mode, position, video, num_frames=0, error=error, content={})

    def results_folder(self, mode: str, position: int, video: Video) -> Path:
        """Where the masks of a finished video lie."""
        part = self.scratch / mode / f'{position:05d}'
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
        """Keep how long each stage took in each frame of a video, in milliseconds."""
        rounded = {name: [round(value, 3) for value in stages[name]] for name in stages}
        write_json(self.scratch / 'times' / f'{position:05d}.json', rounded)

    def times(self) -> Iterator[dict[str, list[float]]]:
        """What `note_times` has kept, video by video."""
        for path in sorted((self.scratch / 'times').glob('*.json')):
            yield json.loads(path.read_text(encoding='utf-8'))

    def _marker_path(self, mode: str, position: int) -> Path:
        return self.scratch / mode / f'{position:05d}.json'

    def _mark(self, mode: str, position: int, video: Video, **fields: Any) -> None:
        marker = {'video_id': video.video_id, 'name': video.name, **fields}
        write_json(self._marker_path(mode, position), marker)


def _check_same(path: Path, request: Mapping[str, Any]) -> None:
    """Refuse to mix the results of two requests."""
    try:
        earlier = json.loads(path.read_text(encoding='utf-8'))
        assert isinstance(earlier, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise ValueError(
            f'{path} cannot be read ({error}). Name another folder with --out.'
        ) from error
    differences = [
        f'{key} was {_shown(earlier.get(key))} and is {_shown(request.get(key))}'
        for key in sorted({*earlier, *request})
        if earlier.get(key) != request.get(key)
    ]
    if differences:
        raise ValueError(
            f'{path.parent} holds the results of another run: {"; ".join(differences)}. '
            'Ask for the same, or name another folder with --out.'
        )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
