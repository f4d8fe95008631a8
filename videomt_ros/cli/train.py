"""`videomt train`: train a network from a run file."""

from __future__ import annotations

import argparse
import logging

from videomt_ros.cli.argument_types import add_skip_bad

HELP = 'train a network from a run file in config/'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument('--config', required=True, help='run file, such as config/train_demo.yaml')
    parser.add_argument(
        '--resume', action='store_true', help='go on from the last checkpoint of the run'
    )
    add_skip_bad(parser)
    parser.add_argument(
        'overrides',
        nargs='*',
        metavar='key=value',
        help='settings that replace those of the run file, such as out=out/mine device=cuda',
    )


def main(args: argparse.Namespace) -> int:
    """Train, and print the path of the weights."""
    from videomt_ros.training.run_file import load_settings

    # Read before torch and Lightning are imported, so that a wrong setting is named at once.
    skip_bad = ['skip_bad=true'] if args.skip_bad else []
    settings = load_settings(args.config, [*args.overrides, *skip_bad])
    from videomt_ros.training.machine import is_first_process
    from videomt_ros.training.trainer import train

    # Of several processes, only the first logs more than warnings.
    is_first = is_first_process()
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format='%(message)s')
    path = train(settings, resume=args.resume)
    if is_first:
        print(path)
    return 0
