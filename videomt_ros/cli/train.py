"""`videomt train`: train a network from a run file."""

from __future__ import annotations

import argparse
import logging

HELP = 'train a network from a run file in config/'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument('--config', required=True, help='run file, such as config/train_demo.yaml')
    parser.add_argument(
        '--resume', action='store_true', help='go on from the last checkpoint of the run'
    )
    parser.add_argument(
        'overrides',
        nargs='*',
        metavar='key=value',
        help='settings that replace those of the run file, such as out=out/mine device=cuda',
    )


def main(args: argparse.Namespace) -> int:
    """Run the training; prints where the weights are."""
    from videomt_ros.training.machine import is_first_process
    from videomt_ros.training.run_file import load_settings
    from videomt_ros.training.trainer import train

    # One of several processes speaks for all, unless something is wrong.
    speaks = is_first_process()
    logging.basicConfig(level=logging.INFO if speaks else logging.WARNING, format='%(message)s')
    path = train(load_settings(args.config, args.overrides), resume=args.resume)
    if speaks:
        print(path)
    return 0
