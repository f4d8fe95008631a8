"""Scores result files against annotation files, for `videomt score` and `evaluate`.

Files of any origin are read, one video at a time, and no network is needed. One rule holds for
all formats: a video without results, or with results that cannot be used, counts as missed; one
whose truth cannot be used is left out of the figures; results of videos that the truth lacks are
ignored. All are named. Only if nothing is left to score, or if the caller is strict, it is an
error.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from videomt_ros.datasets.dataset import Dataset, DatasetError, Video
from videomt_ros.datasets.formats.ytvis import BROKEN_ZIP
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.family import ScoreRequest
from videomt_ros.evaluation.score_report import ScoreReport


def score_files(
    family: str,
    truth: Sequence[Path],
    results: Path,
    truth_masks: Path | None = None,
    split: str = '',
    video_ids: Collection[int | str] | None = None,
    *,
    track_score: float = 0.0,
    skip_bad: bool = False,
    is_strict: bool = True,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ScoreReport:
    """Score results in the benchmark's own file format.

    Args:
        family: name of the family of the files: ytvis (YouTube-VIS, OVIS), vipseg or vspw.
        truth: annotation file; for VSPW the folder. Several, for ytvis alone: the mean over them,
            and each in `parts`.
        results: ytvis: results.json, or a folder that holds it; vipseg: the folder with pred.json
            and pan_pred; coco_panoptic: the same, or the JSON or the folder of PNGs of
            panopticapi; vspw: the folder with <video>/<frame>.png. For all: a zip of these.
        truth_masks: vipseg: folder of the true PNGs; else panomasksRGB beside the JSON.
        split: vspw: which list of videos; else val.
        video_ids: score these videos alone; others are ignored in truth and results.
        track_score: ytvis: tracks with a lower score are left out of the figures of tracking. 0
            counts all, as TrackEval does. Results of the published mode hold ten guesses for
            each video, however unlikely, and no measure of tracking is kind to that.
        skip_bad: leave out records of truth and results with faults, and list them in `left_out`.
        is_strict: whether masks that cannot be used, and results of videos that the truth lacks,
            are errors; else they are named in `failures` and `notes`.
        progress: called after each video with the numbers of videos scored and to be scored.

    Raises:
        DatasetError: files are missing, broken, or do not belong together; lists every fault.
        ValueError: arguments that do not fit the family.
    """
    request = ScoreRequest(
        truth,
        results,
        truth_masks,
        split,
        video_ids,
        track_score,
        skip_bad,
        is_strict,
        progress,
    )
    wanted = family_of(family)
    with _unpacked(results, wanted.reads_zip) as folder:
        return wanted.score(replace(request, results=folder))


@contextmanager
def _unpacked(results: Path, is_read: bool) -> Iterator[Path]:
    """Unpack a zip of results for the families that read folders; yields what to read."""
    if is_read or results.suffix.lower() != '.zip' or not results.is_file():
        yield results
        return
    with TemporaryDirectory(prefix='videomt-results-') as scratch:
        folder = Path(scratch) / results.stem
        try:
            with zipfile.ZipFile(results) as archive:
                archive.extractall(folder)
        except BROKEN_ZIP as error:
            raise DatasetError(results, [f'Expected a sound zip file, but {error}.']) from error
        # Archives often hold one folder with everything in it.
        inside = [path for path in folder.iterdir() if not path.name.startswith(('.', '__MACOSX'))]
        is_wrapped = len(inside) == 1 and inside[0].is_dir() and inside[0].name != 'pan_pred'
        yield inside[0] if is_wrapped and any(map(Path.is_dir, inside[0].iterdir())) else folder


def score_results(
    dataset: Dataset,
    videos: Sequence[Video],
    results: Path,
    notes: Sequence[str] | None = None,
) -> ScoreReport:
    """Score result files for some videos of a data set with truth.

    Args:
        dataset: data set with truth.
        videos: those of its videos that are scored.
        results: result files; see `score_files`.
        notes: remarks on the videos themselves, which come first among the notes; None for those
            that the videos have, as those of bags.
    """
    if notes is None:
        notes = [note for video in videos for note in getattr(video, 'notes', ())]
    report = score_files(
        dataset.family,
        dataset.truth,
        results,
        dataset.truth_masks,
        dataset.split,
        [video.video_id for video in videos],
        skip_bad=dataset.skip_bad,
        is_strict=False,
    )
    report.notes[:0] = notes
    return report
