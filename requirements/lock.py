"""Write constraints.txt: the newest versions that fit together, for every supported Python.

    python requirements/lock.py python3.10 python3.11 python3.12 python3.13

Each interpreter needs pip. It resolves all requirement files without installing anything; where
the answers differ, the pins carry an environment marker.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FILES = ('base', 'train', 'eval', 'export', 'test', 'ros')
TOOLS = ('pip', 'setuptools')
"""Pinned too: they install and build the rest."""
HEADER = """\
# Every package that an installation can bring in, pinned. Written by requirements/lock.py.
# Use: pip install -c requirements/constraints.txt -r requirements/base.txt
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Ask one interpreter's pip what it would install.

    Returns:
        The interpreter's version such as '3.11', and the version of each package by name.
    """
    command = [python, '-m', 'pip', 'install', '--quiet', '--dry-run', '--ignore-installed']
    command += ['--report', '-', *TOOLS]
    for name in FILES:
        command += ['-r', str(FOLDER / f'{name}.txt')]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    pins = {}
    for item in report['install']:
        name = re.sub(r'[-_.]+', '-', item['metadata']['name']).lower()
        pins[name] = item['metadata']['version']
    return report['environment']['python_version'], pins


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """One line per package and version, with a marker where not every Python has that version."""
    lines = []
    for name in sorted(set().union(*resolved.values())):
        versions: dict[str, list[str]] = {}
        for python, pins in resolved.items():
            if name in pins:
                versions.setdefault(pins[name], []).append(python)
        for version, pythons in versions.items():
            line = f'{name}=={version}'
            if len(pythons) < len(resolved):
                line += ' ; ' + ' or '.join(f"python_version == '{p}'" for p in pythons)
            lines.append(line)
    return lines


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    resolved = dict(resolve(python) for python in sys.argv[1:])
    (FOLDER / 'constraints.txt').write_text(HEADER + '\n'.join(merge(resolved)) + '\n')
    print(f'constraints.txt holds the pins of Python {", ".join(resolved)}')
