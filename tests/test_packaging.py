from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.test_imports import ROS, imported_names
from videomt_ros.cli import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_XML = ElementTree.parse(ROOT / 'package.xml').getroot()
SHIPPED = ('config', 'launch', 'models', 'msg')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel that `pip install .` makes, built from a copy: setuptools writes beside it."""
    copy = tmp_path_factory.mktemp('checkout')
    for name in ('setup.py', 'package.xml', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    for name in ('videomt_ros', 'requirements', *SHIPPED):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps']
    command += ['--no-build-isolation', '--wheel-dir', str(copy / 'wheels'), str(copy)]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next((copy / 'wheels').glob('*.whl'))) as archive:
        yield archive


def read(wheel, name):
    return wheel.read(next(path for path in wheel.namelist() if path.endswith(name))).decode()


def test_the_wheel_holds_the_package_and_what_it_reads(wheel):
    for folder in ('videomt_ros', *SHIPPED):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                end = str(path.relative_to(ROOT))
                assert any(name.endswith(end) for name in wheel.namelist()), end
    assert not [name for name in wheel.namelist() if name.startswith('tests')]


def test_the_wheel_has_the_command_the_extras_and_the_version(wheel):
    assert 'videomt = videomt_ros.cli:main' in read(wheel, 'entry_points.txt')
    metadata = read(wheel, 'METADATA').splitlines()
    assert f'Version: {PACKAGE_XML.findtext("version")}' in metadata
    for extra in ('train', 'eval', 'export', 'test'):
        assert f'Provides-Extra: {extra}' in metadata
    assert 'Requires-Dist: torch' in metadata
    assert not [line for line in metadata if 'Requires-Dist: ros-' in line]


def test_the_extra_that_a_missing_module_comes_with_brings_it(wheel):
    metadata = read(wheel, 'METADATA')
    for module, extra in EXTRAS.items():
        pattern = rf'^Requires-Dist: {module}\b.*; extra == "{extra}"$'
        assert re.search(pattern, metadata, re.MULTILINE), module


def test_the_extra_for_tests_brings_what_they_import(wheel):
    metadata = read(wheel, 'METADATA')
    for module in ('pytest', *EXTRAS):
        assert re.search(rf'^Requires-Dist: {module}\b.*"test"$', metadata, re.MULTILINE), module


def test_package_xml_declares_every_ros_package_that_is_imported():
    declared = {element.text for element in PACKAGE_XML if element.tag.endswith('depend')}
    files = [*(ROOT / 'videomt_ros' / 'ros').glob('*.py'), *(ROOT / 'launch').glob('*.py')]
    used = {name.partition('.')[0] for file in files for name, _ in imported_names(file, '')}
    assert (used & ROS) - declared == set()


@pytest.mark.parametrize('name', ['Dockerfile', 'Dockerfile.jetson'])
def test_docker_images_copy_what_the_package_is_made_of(name):
    lines = (ROOT / 'docker' / name).read_text().splitlines()
    assert any('Not built here' in line for line in lines)
    copied = [word for line in lines if line.startswith('COPY') for word in line.split()[1:-1]]
    assert all((ROOT / word).exists() for word in copied)
    assert {'videomt_ros/', 'package.xml', 'CMakeLists.txt', 'requirements/'} <= set(copied)
    assert {f'{folder}/' for folder in SHIPPED} <= set(copied)


def test_the_messages_that_are_built_are_those_there_are():
    listed = (ROOT / 'CMakeLists.txt').read_text()
    for path in (ROOT / 'msg').iterdir():
        assert f'msg/{path.name}' in listed


def test_every_requirement_is_pinned():
    def names(file):
        lines = (ROOT / 'requirements' / file).read_text().splitlines()
        lines = [line.partition('#')[0].strip() for line in lines]
        kept = (line for line in lines if line and not line.startswith('-r'))
        return {re.split('[^A-Za-z0-9._-]', line)[0].lower().replace('_', '-') for line in kept}

    pinned = names('constraints.txt')
    for path in (ROOT / 'requirements').glob('*.txt'):
        assert names(path.name) - pinned == set(), path.name
