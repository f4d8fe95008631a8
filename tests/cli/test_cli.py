from __future__ import annotations

import itertools
import os
import platform
import signal
import subprocess
import sys
import textwrap

import pytest

from videomt_ros import cli
from videomt_ros.cli import describe_versions, find_verbs, main
from videomt_ros.resources import package_version, resource


@pytest.fixture
def verb(tmp_path, monkeypatch):
    """Add a verb `probe` to the command, whose main has the given body."""

    def add(body):
        (tmp_path / 'probe.py').write_text(
            "HELP = 'for this test'\n"
            'def add_arguments(parser):\n'
            "    parser.add_argument('--number', type=int, default=0)\n"
            'def main(args):\n' + textwrap.indent(body, '    ')
        )
        monkeypatch.setattr(cli, '__path__', [str(tmp_path)])
        monkeypatch.setattr(cli, 'find_verbs', lambda: find_verbs(tmp_path))
        monkeypatch.delitem(sys.modules, 'videomt_ros.cli.probe', raising=False)

    yield add
    sys.modules.pop('videomt_ros.cli.probe', None)


def python(*arguments):
    """Run a fresh Python in which nothing has been imported yet."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_the_help_lists_every_verb_and_imports_none():
    code = (
        'import sys\n'
        'from videomt_ros.cli import main\n'
        'try: main(["--help"])\n'
        'except SystemExit as end: assert end.code == 0\n'
        'heavy = {"torch", "rclpy", "cv2", "timm"} & set(sys.modules)\n'
        'heavy |= {name for name in sys.modules if name.startswith("videomt_ros.cli.")}\n'
        'assert not heavy, heavy'
    )
    done = python('-c', code)
    assert done.returncode == 0, done.stderr
    for name, text in find_verbs().items():
        assert name in done.stdout
        assert text in ' '.join(done.stdout.split())


@pytest.mark.parametrize('name', find_verbs())
def test_each_verb_describes_itself_without_torch_and_ros(name):
    code = (
        'import sys\n'
        'from videomt_ros.cli import main\n'
        f'try: main(["{name}", "--help"])\n'
        'except SystemExit as end: assert end.code == 0\n'
        'assert not {"torch", "rclpy", "timm"} & set(sys.modules)'
    )
    done = python('-c', code)
    assert done.returncode == 0, done.stderr
    assert find_verbs()[name] in ' '.join(done.stdout.split())


def test_the_module_runs_as_a_command():
    done = python('-m', 'videomt_ros', '--help')
    assert done.returncode == 0
    assert done.stdout.startswith('usage: videomt')


def test_passes_arguments_and_the_exit_code(verb):
    verb('return args.number\n')
    assert main(['probe', '--number', '7']) == 7


def test_a_file_without_help_is_no_verb(tmp_path):
    (tmp_path / 'tools.py').write_text('x = 1\n')
    (tmp_path / 'typed.py').write_text("HELP: str = 'a verb'\n")
    assert find_verbs(tmp_path) == {'typed': 'a verb'}


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        ("ValueError('Expected 1,\\n  got 2.')", 'Expected 1, got 2.'),
        ("FileNotFoundError('no such clip')", 'no such clip'),
        ("OSError(21, 'Is a directory', 'a/b')", 'a/b: Is a directory.\n'),
        ("type('BagError', (ValueError,), {})('not a bag')", 'not a bag'),
        ("ModuleNotFoundError('x', name='cv_bridge')", 'needs the Python module cv_bridge'),
        ("ModuleNotFoundError('Neither is available')", 'Neither is available'),
    ],
)
def test_known_errors_end_in_one_line(verb, capsys, error, reason):
    verb(f'raise {error}\n')
    assert main(['probe']) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f'videomt probe: {reason}')
    assert captured.err.count('\n') == 1
    assert captured.out == ''


def test_a_missing_module_names_the_extra_that_brings_it(verb, capsys):
    verb("raise ModuleNotFoundError('x', name='lightning.pytorch')\n")
    assert main(['probe']) == 1
    error = capsys.readouterr().err
    assert 'needs the Python module lightning.pytorch' in error
    assert "pip install '.[train]'" in error and error.count('\n') == 1


def test_our_own_faults_keep_their_traceback(verb):
    verb("raise ModuleNotFoundError('x', name='videomt_ros.nothing')\n")
    with pytest.raises(ModuleNotFoundError):
        main(['probe'])
    verb("raise TypeError('a bug')\n")
    with pytest.raises(TypeError):
        main(['probe'])


SETTINGS = ('phases.0.steps=1', 'no.such=2')


@pytest.mark.parametrize('verb', [['train'], ['benchmark', 'train']])
@pytest.mark.parametrize('order', [*itertools.permutations((*SETTINGS, '--config'))])
def test_settings_may_come_before_and_after_options(verb, order, capsys):
    run_file = str(resource('config', 'train_demo.yaml'))
    words = [word for name in order for word in (name, *[run_file][: name == '--config'])]
    assert main([*verb, *words]) == 1
    assert 'Unknown settings: no' in capsys.readouterr().err  # the first one is known


def test_an_unknown_option_is_told_with_the_usage_of_its_verb(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['train', '--no-such', '--config', 'x', 'a=1'])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith('usage: videomt train')
    assert error.endswith('videomt train: error: unrecognized arguments: --no-such\n')


def test_ctrl_c_ends_with_130(verb):
    verb(f'import os\nos.kill(os.getpid(), {int(signal.SIGINT)})\nreturn 0\n')
    assert main(['probe']) == 130


def test_a_closed_pipe_is_no_traceback(verb, tmp_path):
    verb('for _ in range(100000): print("line")\nreturn 0\n')
    code = (
        f'from videomt_ros import cli; cli.__path__ = [{str(tmp_path)!r}]\n'
        'cli.find_verbs = lambda: {"probe": ""}\n'
        'raise SystemExit(cli.main(["probe"]))'
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, '-c', code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b'')


@pytest.mark.parametrize('arguments', [[], ['no-such-verb']])
def test_a_wrong_verb_names_those_there_are(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert 'verb' in error
    assert not arguments or all(name in error for name in find_verbs())


def test_the_version_names_what_it_runs_on():
    done = python('-m', 'videomt_ros', '--version')
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith(f'videomt {package_version()}, Python {platform.python_version()}, ')
    torch = python('-c', 'import torch; print(torch.__version__)').stdout.strip()
    assert f'torch {torch}, ' in line


@pytest.mark.parametrize(('distro', 'told'), [('jazzy', 'ROS jazzy'), (None, 'ROS not sourced')])
def test_the_version_names_the_ros_distribution(monkeypatch, distro, told):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    if distro:
        monkeypatch.setenv('ROS_DISTRO', distro)
    assert describe_versions().endswith(told)


LOG = """
logging.getLogger('videomt_ros.model.checkpoint').info('which weights')
logging.getLogger('videomt_ros.model.checkpoint').warning('odd weights')
logging.getLogger('videomt_ros.datasets').info('something else')
"""


@pytest.mark.parametrize(
    ('setup', 'level'),
    [('', None), ("logging.basicConfig(level=logging.INFO, format='%(message)s')\n", 'INFO')],
)
def test_what_loading_a_model_tells_is_shown_once(tmp_path, setup, level):
    code = (
        'import logging, types\n'
        'from videomt_ros import cli\n'
        'def run(args):\n'
        + ''.join(f'    {line}\n' for line in (setup + LOG).splitlines() if line)
        + '    return 0\n'
        "cli.find_verbs = lambda: {'probe': 'help'}\n"
        'module = types.SimpleNamespace(add_arguments=lambda parser: None, main=run)\n'
        'cli.import_module = lambda name: module\n'
        "assert cli.main(['probe']) == 0\n"
        "assert not logging.getLogger('videomt_ros.model').handlers\n"
    )
    lines = python('-c', code).stderr.splitlines()
    assert lines[:2] == ['which weights', 'odd weights']
    assert lines[2:] == (['something else'] if level else [])
