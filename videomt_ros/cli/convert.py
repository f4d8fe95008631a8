"""`videomt convert`: write what labelling tools export as a data set of videos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from videomt_ros.cli.argument_types import add_skip_bad, positive_number
from videomt_ros.progress import Progress

HELP = 'turn labels of CVAT, labelme, CocoVID or COCO into a data set of videos'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        'sources',
        type=Path,
        nargs='+',
        metavar='IN',
        help='folders, zips, JSON or XML files, which become one data set: YouTube-VIS, COCO, '
        'CocoVID, "COCO 1.0" and "CVAT for video 1.1" of CVAT, or the files of labelme',
    )
    parser.add_argument('--out', type=Path, required=True, help='new or empty folder')
    parser.add_argument(
        '--frames',
        type=Path,
        help='folder of the images, or the video file, that was labelled; default: the images of '
        'the export',
    )
    parser.add_argument(
        '--valid-share',
        type=share,
        default=0.0,
        metavar='SHARE',
        help='share of the videos, the last ones, that go to valid.json while the others go to '
        'train.json, such as 0.2; default: all go to valid.json',
    )
    parser.add_argument(
        '--fps',
        type=positive_number,
        help='frames per second of images, where the labels do not say it',
    )
    add_skip_bad(parser)


def share(text: str) -> float:
    """Parse a number between 0 and 1, both excluded."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'expected a share between 0 and 1, got {text!r}')
    return value


def main(args: argparse.Namespace) -> int:
    """Convert; the last line printed is the command that evaluates a model on the result.

    It leaves the model to the user, since the demo models know none of the user's classes.
    """
    from videomt_ros.datasets.conversion import LEFT_OUT_FILE, convert
    from videomt_ros.datasets.dataset import left_out_summary
    from videomt_ros.datasets.formats.record_checks import counted

    with Progress(None, 'frame') as bar:
        done = convert(
            args.sources,
            args.out,
            args.frames,
            args.valid_share,
            args.fps,
            skip_bad=args.skip_bad,
            progress=bar.show,
        )
    where = [f'{args.out / LEFT_OUT_FILE} lists what was left out.'] if done.left_out else []
    for note in [*done.notes, *left_out_summary(done.left_out), *where]:
        print(f'note: {note}', file=sys.stderr)
    parts = ', '.join(f'{count} in {name}.json' for name, count in done.videos.items())
    print(
        f'{counted(sum(done.videos.values()), "video")}, {counted(done.num_frames, "frame")}, '
        f'{counted(done.num_objects, "object")} in {args.out}: {parts}'
    )
    print(f'videomt evaluate --model MODEL --dataset ytvis2019 --root {args.out}')
    return 0
