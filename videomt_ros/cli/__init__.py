"""The verbs of `videomt`.

A verb is a file in this folder that holds

    HELP = 'one line'
    def add_arguments(parser: ArgumentParser) -> None
    def main(args: Namespace) -> int        # the exit code

A verb imports torch and rclpy inside `main`, so that `videomt <verb> --help` answers at once.
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from videomt_ros.errors import command_text
from videomt_ros.resources import package_version

EXTRAS = {
    'lightning': 'train',
    'tensorboard': 'train',
    'jinja2': 'eval',
    'transformers': 'eval',
    'onnx': 'export',
    'onnxruntime': 'export',
    'onnxscript': 'export',
}
"""Extra of pip that installs each module which only some verbs need."""


def find_verbs(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """List the verbs without importing one.

    Returns:
        The HELP of each verb by name, in alphabetical order.
    """
    verbs = {}
    for path in sorted(folder.glob('*.py')):
        for statement in ast.parse(path.read_text(encoding='utf-8')).body:
            match statement:
                case ast.Assign([ast.Name('HELP')], ast.Constant(str(text))):
                    verbs[path.stem] = text
                case ast.AnnAssign(ast.Name('HELP'), _, ast.Constant(str(text))):
                    verbs[path.stem] = text
    return verbs


def main(argv: list[str] | None = None) -> int:
    """Run one verb; only its module is imported.

    Args:
        argv: verb and arguments; None: those of the process.

    Returns:
        Exit code: that of the verb, 1 after an error that the user can fix, which prints one line
        on stderr, 2 for wrong arguments, 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser('videomt', description='Live video segmentation with ids.')
    parser.add_argument(
        '--version', action='version', version=describe_versions(), help='show versions, and exit'
    )
    choices = parser.add_subparsers(metavar='verb', required=True)
    run = named = None
    for verb, text in find_verbs().items():
        chosen = choices.add_parser(verb, help=text, description=text)
        if argv[:1] == [verb]:
            module = import_module(f'{__name__}.{verb}')
            module.add_arguments(chosen)
            run, named = module.main, chosen
    args, left = parser.parse_known_args(argv)
    if hasattr(args, 'overrides'):
        # argparse ends a list of words at the first option behind it.
        args.overrides += [word for word in left if not word.startswith('-')]
        left = [word for word in left if word.startswith('-')]
    if left:
        (named or parser).error(f'unrecognized arguments: {" ".join(left)}')
    args.command = shlex.join(['videomt', *argv])  # for verbs that write down how they were run
    assert run is not None, 'parse_args ends the process where no verb was named'
    try:
        with _models_on_stderr():
            return run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output, such as `head`, has ended. Without this, Python would report
        # the broken pipe once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if (error.name or '').startswith('videomt_ros') and error.name != 'videomt_ros.msg':
            raise
        # Lightning's error names no module if TensorBoard is missing.
        what = f'needs the Python module {error.name}, which is not installed.'
        extra = EXTRAS.get((error.name or '').partition('.')[0])
        how = 'See "Install" in the README: extras of pip, or a sourced ROS workspace.'
        if extra:
            how = f"It comes with the extra [{extra}]: pip install '.[{extra}]' in the checkout."
        return _fail(argv[0], f'{what if error.name else error} {how}')
    except (ValueError, OSError) as error:
        return _fail(argv[0], _in_words(error))


def _in_words(error: Exception) -> str:
    """Return the text of an error; one of the operating system becomes `FILE: what is wrong`."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f'{os.fspath(error.filename)}: {error.strerror}.'
    return command_text(error)


def describe_versions() -> str:
    """List the versions of this package and of what it runs on, without importing any of it."""
    return (
        f'videomt {package_version()}, Python {platform.python_version()}, '
        f'torch {_torch_version()}, ROS {os.environ.get("ROS_DISTRO", "not sourced")}'
    )


def _torch_version() -> str:
    """Read the version of torch with its build, such as +cu132, which its package lacks."""
    spec = find_spec('torch')
    if spec is None or spec.origin is None:
        return 'not installed'
    try:
        text = Path(spec.origin).with_name('version.py').read_text(encoding='utf-8')
    except OSError:
        text = ''
    found = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    return found[1] if found else 'of unknown version'


@contextmanager
def _models_on_stderr() -> Iterator[None]:
    """Show on stderr what loading a model tells, unless the verb shows its log by itself.

    In a terminal the hub's client draws a bar for a download, beside which no lines are needed.
    """
    models, root = logging.getLogger('videomt_ros.model'), logging.getLogger()
    hub = models.getChild('hub')
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: not root.handlers)
    before = models.level, hub.level
    models.addHandler(handler)
    models.setLevel(logging.INFO)
    if sys.stderr.isatty():
        hub.setLevel(logging.WARNING)
    try:
        yield
    finally:
        models.removeHandler(handler)
        models.setLevel(before[0])
        hub.setLevel(before[1])


def _fail(verb: str, reason: str) -> int:
    print(f'videomt {verb}: {" ".join(reason.split())}', file=sys.stderr)
    return 1
