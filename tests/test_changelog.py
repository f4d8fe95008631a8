"""The changelog: its form, and that it knows the current version."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from videomt_ros.resources import package_version

TEXT = (Path(__file__).resolve().parents[1] / 'CHANGELOG.md').read_text(encoding='utf-8')
VERSIONS = re.findall(r'^## (\d+)\.(\d+)\.(\d+) - (\S+)$', TEXT, re.MULTILINE)
KINDS = {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}


def test_the_newest_version_is_the_current_one():
    assert '.'.join(VERSIONS[0][:3]) == package_version()


def test_versions_come_newest_first_with_the_dates_of_their_releases():
    numbers = [tuple(map(int, version[:3])) for version in VERSIONS]
    dates = [datetime.date.fromisoformat(version[3]) for version in VERSIONS]
    assert numbers == sorted(set(numbers), reverse=True)
    assert dates == sorted(dates, reverse=True)


def test_headings_are_those_of_keep_a_changelog():
    heads = re.findall(r'^## (.+)$', TEXT, re.MULTILINE)
    assert heads.count('Unreleased') <= 1
    assert len(heads) == len(VERSIONS) + heads.count('Unreleased')
    for part in re.split(r'^## .+$', TEXT, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r'^### (.+)$', part, re.MULTILINE)
        assert kinds and set(kinds) <= KINDS and len(kinds) == len(set(kinds))
        for entry in re.split(r'^### .+$', part, flags=re.MULTILINE)[1:]:
            assert entry.strip().startswith('- ')
