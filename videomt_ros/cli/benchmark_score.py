"""`videomt benchmark score`: time video AP beside a plain loop over pairs of tracks."""

from __future__ import annotations

import argparse

from videomt_ros.cli.argument_types import count
from videomt_ros.cli.benchmark_report import Report, add_json_option


def add_score(choices: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `benchmark score` and its options."""
    text = 'time video AP beside the loop over pairs of tracks that it replaces'
    parser = choices.add_parser('score', help=text, description=text)
    parser.set_defaults(run=benchmark_score)
    parser.add_argument('--videos', type=count, default=300, help='number of videos; default: 300')
    parser.add_argument(
        '--results',
        type=count,
        default=3000,
        help='number of results in all videos; default: 3000',
    )
    parser.add_argument(
        '--objects',
        type=count,
        default=12,
        help='number of true objects in each video; the more, the larger the ratio; default: 12',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random case; default: 0')
    parser.add_argument(
        '--repeats', type=count, default=1, help='times that each side is timed; default: 1'
    )
    add_json_option(parser)


def benchmark_score(args: argparse.Namespace) -> int:
    """Time video AP beside the plain loop, and check that both give the same figures."""
    from videomt_ros.speed import scoring
    from videomt_ros.speed.machine import header

    case = scoring.make_case(args.videos, args.results, args.objects, args.seed)
    height, width = scoring.SIZE
    report = Report(
        args,
        'score',
        header(None, 'numpy', 'pycocotools'),
        case=f'{args.videos} videos of {scoring.NUM_FRAMES} frames of {width} x {height} '
        f'pixels, {args.objects} objects of one category in each; {args.results} results, '
        f'{scoring.count_pairs(case)} pairs of a result and an object; seed {args.seed}',
        timed='from run-length codes in memory to all figures, without reading files; seconds of '
        'one thread of the CPU',
    )
    comparison = scoring.compare_scoring(case, args.repeats)
    sides = {
        'videomt_ros': (comparison.ours_s, comparison.ours_samples_s),
        'pairs': (comparison.plain_s, comparison.plain_samples_s),
    }
    for side, (median_s, samples_s) in sides.items():
        report.add(side=side, median_s=median_s, samples_s=samples_s)
    report.table(
        [
            (f'median of {args.repeats}', 'seconds of the CPU'),
            *((side, f'{median_s:.2f}') for side, (median_s, _) in sides.items()),
        ]
    )
    print()
    print(f'memory of videomt_ros: {comparison.peak_bytes / 1e6:.1f} MB over that of the case')
    print(f'figures: differ by {comparison.difference:.1g} at most')
    if comparison.difference > scoring.TOLERANCE:
        raise ValueError(
            f'Expected the same figures from both ways, within {scoring.TOLERANCE:g}, but '
            f'they differ by {comparison.difference:.3g}: {comparison.figures}. Please report it.'
        )
    report.end(f'The loop over pairs takes {comparison.ratio:.1f} times as long.')
    return 0
