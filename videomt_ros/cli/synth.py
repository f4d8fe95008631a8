"""`videomt synth`: write synthetic scenes as a labelled data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from videomt_ros.progress import Progress

HELP = 'write synthetic scenes as a data set with exact truth'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    from videomt_ros.datasets.synthetic.writing import FORMATS

    parser.add_argument(
        '--format', choices=tuple(FORMATS), required=True, help='format of the files'
    )
    parser.add_argument('--videos', type=int, required=True, help='number of videos')
    parser.add_argument('--out', type=Path, required=True, help='new or empty folder')
    parser.add_argument('--frames', type=int, default=40, help='frames of each video; default: 40')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(384, 480),
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the images in pixels; default: 384 480',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the first scene; the next ones count up; default: 0',
    )
    parser.add_argument(
        '--stuff',
        action='store_true',
        help='draw sky, ground and walls, which have labels; for vipseg and vspw',
    )
    parser.add_argument(
        '--hidden-frames',
        type=int,
        nargs=2,
        metavar=('FEWEST', 'MOST'),
        help='let shapes vanish behind a wall for FEWEST to MOST frames; default: no wall',
    )
    parser.add_argument(
        '--away-frames',
        type=int,
        nargs=2,
        metavar=('FEWEST', 'MOST'),
        help='let shapes leave the image for FEWEST to MOST frames and return; not together with '
        '--hidden-frames',
    )
    parser.add_argument(
        '--alike',
        type=int,
        default=0,
        metavar='NUMBER',
        help='give NUMBER shapes of each video the same class, colours, texture and size; '
        'default: 0',
    )
    parser.add_argument(
        '--objects',
        type=int,
        metavar='NUMBER',
        help='shapes of each video; default: 3 to 6, with --hard 5 to 9',
    )
    parser.add_argument(
        '--hard',
        action='store_true',
        help='draw harder scenes: more shapes, of which some are thin, of one class or alike, '
        'moving textures, a shaking camera',
    )


def main(args: argparse.Namespace) -> int:
    """Write the data set, and print the command that evaluates a model on it."""
    from videomt_ros.datasets.synthetic.writing import FORMATS, write_dataset

    with Progress(args.videos, 'video') as bar:
        write_dataset(
            args.format,
            args.out,
            args.videos,
            args.frames,
            args.seed,
            size=tuple(args.size),
            progress=lambda number: bar.update(1),
            stuff=args.stuff,
            hidden_frames=args.hidden_frames and tuple(args.hidden_frames),
            away_frames=args.away_frames and tuple(args.away_frames),
            alike=args.alike,
            num_objects=args.objects,
            hard=args.hard,
        )
    name = FORMATS[args.format].benchmark
    print(f'{args.videos} videos of {args.frames} frames in {args.out}')
    model = 'demo_panoptic' if args.stuff else 'demo'
    print(f'videomt evaluate --model {model} --dataset {name} --root {args.out}')
    return 0
