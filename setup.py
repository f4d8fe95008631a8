"""`pip install .`: the library and the command `videomt`; colcon builds the ROS package itself.

Version and description stand in package.xml, requirements in requirements/.
"""

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()


def requirements(name: str) -> list[str]:
    """Packages of a requirement file and of those that it includes."""
    found = []
    for line in (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines():
        line = line.partition('#')[0].strip()
        if line.startswith('-r '):
            found += requirements(Path(line[3:]).stem)
        elif line:
            found.append(line)
    return found


def shipped_files() -> list[tuple[str, list[str]]]:
    """Files beside the package, for `videomt_ros.resources`: target folder and its files."""
    files = defaultdict(list)
    for folder in ('config', 'launch', 'models', 'msg'):
        for path in sorted((ROOT / folder).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                relative = path.relative_to(ROOT)
                files[f'share/videomt_ros/{relative.parent}'].append(str(relative))
    return list(files.items())


setup(
    name=PACKAGE.findtext('name'),
    version=PACKAGE.findtext('version'),
    description=PACKAGE.findtext('description'),
    license=PACKAGE.findtext('license'),
    packages=find_packages(include=['videomt_ros', 'videomt_ros.*']),
    package_data={'videomt_ros.evaluation.report': ['*.html', '*.css']},
    data_files=shipped_files(),
    python_requires='>=3.10',
    install_requires=requirements('base'),
    extras_require={
        'train': requirements('train'),
        'eval': requirements('eval'),
        'export': requirements('export'),
        'test': [
            package
            for name in ('train', 'eval', 'export', 'test')
            for package in requirements(name)
        ],
    },
    entry_points={'console_scripts': ['videomt = videomt_ros.cli:main']},
)
