"""The map in CONTRIBUTING.md names every file of the package, each once, and no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def mapped_files(text: str) -> Counter[str]:
    """Files in the tables of the map, by their paths in the package."""
    found: Counter[str] = Counter()
    folder = None
    for line in text.splitlines():
        if line.startswith('#'):
            heading = re.fullmatch(r'### `(.+/)`', line)
            is_top = line == '### Files that belong to no folder'
            folder = heading[1] if heading else '' if is_top else None
        elif folder is not None and line.startswith('| `'):
            names = line.split('|')[1]
            found.update(folder + name for name in re.findall(r'`([^`]+)`', names))
    return found


def test_the_map_names_every_file_once():
    package = ROOT / 'videomt_ros'
    files = Counter(
        path.relative_to(package).as_posix()
        for path in package.rglob('*')
        if path.suffix in ('.py', '.html', '.css')
        and path.name not in ('__init__.py', '__main__.py')
    )
    assert mapped_files((ROOT / 'CONTRIBUTING.md').read_text()) == files


def test_paths_in_the_text_exist():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    paths = set(re.findall(r'`((?:\w+/)+\w+\.\w+)`', text))
    homes = (ROOT, ROOT / 'videomt_ros')
    assert paths
    assert {path for path in paths if not any((home / path).exists() for home in homes)} == set()
