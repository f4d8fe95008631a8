from __future__ import annotations

import pytest

from videomt_ros import resources
from videomt_ros.resources import resource


def test_finds_files_and_folders_of_this_checkout():
    assert resource('models').is_dir()
    assert resource('models', 'classes').is_dir()
    assert resource('launch', 'segmenter.launch.py').is_file()


@pytest.mark.parametrize('packages', ['lib/python3.11/site-packages', 'local/lib/dist-packages'])
def test_finds_files_of_an_installed_prefix(tmp_path, monkeypatch, packages):
    package = tmp_path / 'prefix' / packages / 'videomt_ros'
    shipped = tmp_path / 'prefix' / 'share' / 'videomt_ros' / 'config' / 'segmenter.yaml'
    for folder in (package, shipped.parent):
        folder.mkdir(parents=True)
    shipped.touch()
    monkeypatch.setattr(resources, 'PACKAGE', package)
    assert resource('config', 'segmenter.yaml') == shipped


def test_a_checkout_comes_before_an_installation_around_it(tmp_path, monkeypatch):
    checkout = tmp_path / 'checkout'
    for home in (checkout, tmp_path / 'share' / 'videomt_ros'):
        (home / 'config').mkdir(parents=True)
    (checkout / 'videomt_ros').mkdir()
    (checkout / 'package.xml').touch()
    monkeypatch.setattr(resources, 'PACKAGE', checkout / 'videomt_ros')
    assert resource('config') == checkout / 'config'


def test_says_where_it_looked(tmp_path, monkeypatch):
    package = tmp_path / 'lib' / 'videomt_ros'
    (tmp_path / 'share' / 'videomt_ros').mkdir(parents=True)
    monkeypatch.setattr(resources, 'PACKAGE', package)
    with pytest.raises(FileNotFoundError) as caught:
        resource('models', 'none.yaml')
    assert str(tmp_path / 'share' / 'videomt_ros') in str(caught.value)
    assert 'models/none.yaml' in str(caught.value)
