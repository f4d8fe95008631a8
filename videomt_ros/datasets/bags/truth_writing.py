"""The truth of one video, cut out of a data set's and given stamps; `bag_truth` reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import Dataset, DatasetError, Video
from videomt_ros.datasets.json_files import load_json


def bag_name(video: Video) -> str:
    """Name of the video's bag."""
    return video.name.replace('/', '_')


def truth_paths(out: Path, dataset: Dataset, video: Video) -> list[Path]:
    """Files and folders that a video's truth takes in a folder of bags."""
    name = bag_name(video)
    if dataset.family == 'vspw':
        return [out / f'{name}_vspw']
    if dataset.family == 'vipseg':
        return [out / 'panomasksRGB' / str(video.video_id), out / f'{name}.json']
    return [out / f'{name}.json']


class TruthWriter:
    """Writes the truth of one video after the other."""

    def __init__(self, dataset: Dataset) -> None:
        """Read the truth's JSON, if it is one.

        Raises:
            DatasetError: it cannot be read, or is of single images.
        """
        self._dataset = dataset
        self._contents: list[dict[str, Any]] = []
        if dataset.family == 'vspw':
            return
        for path in dataset.truth:
            content = load_json(path)
            if 'videos' not in content:
                fault = 'Expected annotations of videos, got those of single images.'
                raise DatasetError(path, [fault])
            self._contents.append(content)

    def write(self, video: Video, stamps_ns: Sequence[int], out: Path) -> None:
        """Write the files of `truth_paths`, new ones.

        Args:
            video: of the data set.
            stamps_ns: of each annotated frame.
            out: an existing folder.
        """
        write = {'ytvis': self._ytvis, 'vipseg': self._vipseg, 'vspw': self._vspw}
        write[self._dataset.family](video, stamps_ns, out)

    def _ytvis(self, video: Video, stamps_ns: Sequence[int], out: Path) -> None:
        # Of several files, such as those of short and of long videos, the first that has it.
        content, record = next(
            (content, record)
            for content in self._contents
            for record in content['videos']
            if record['id'] == video.video_id
        )
        annotations = [a for a in content['annotations'] if a['video_id'] == video.video_id]
        record = {**record, 'stamps_ns': list(stamps_ns)}
        content = {**content, 'videos': [record], 'annotations': annotations}
        _write_json(out / f'{bag_name(video)}.json', content)

    def _vipseg(self, video: Video, stamps_ns: Sequence[int], out: Path) -> None:
        (content,) = self._contents
        (record,) = (v for v in content['videos'] if v['video_id'] == video.video_id)
        images = [
            {**image, 'stamp_ns': stamp_ns}
            for image, stamp_ns in zip(record['images'], stamps_ns, strict=True)
        ]
        annotations = [a for a in content['annotations'] if a['video_id'] == video.video_id]
        record = {**record, 'images': images}
        content = {**content, 'videos': [record], 'annotations': annotations}
        masks = self._dataset.truth_masks
        assert masks is not None, 'a VIPSeg data set with truth has its masks'
        folder = str(video.video_id)
        for name in video.frame_names:
            target = out / 'panomasksRGB' / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(masks / folder / name, target)
        _write_json(out / f'{bag_name(video)}.json', content)

    def _vspw(self, video: Video, stamps_ns: Sequence[int], out: Path) -> None:
        (source,) = self._dataset.truth
        folder, name = out / f'{bag_name(video)}_vspw', str(video.video_id)
        masks = folder / 'data' / name / 'mask'
        masks.mkdir(parents=True)
        (folder / 'val.txt').write_text(f'{name}\n', encoding='utf-8')
        for file in source.glob('*.json'):  # names of the classes
            shutil.copyfile(file, folder / file.name)
        for frame_name, stamp_ns in zip(video.frame_names, stamps_ns, strict=True):
            shutil.copyfile(
                source / 'data' / name / 'mask' / frame_name, masks / f'{stamp_ns}.png'
            )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding='utf-8')
