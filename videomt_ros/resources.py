"""Find the files that are shipped with the package, and its version.

`models/`, `config/` and `launch/` are beside the package in a source checkout, and in
`share/videomt_ros` of the prefix into which colcon or pip installed the package.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

PACKAGE = Path(__file__).absolute().parent
"""Folder of the package. Symbolic links are kept, since they may lead out of its prefix."""


def resource(*parts: str) -> Path:
    """Find a shipped file or folder, such as `resource('config', 'segmenter.yaml')`.

    Returns:
        Its path, which exists.

    Raises:
        FileNotFoundError: it is missing; the message names the folders that were searched.
    """
    homes = _homes(PACKAGE)
    for home in homes:
        path = home.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(
        f'Expected the shipped file {Path(*parts)} in {" or ".join(map(str, homes))}; it is '
        'missing. Install the package again, or run it from a complete checkout.'
    )


def package_version() -> str:
    """Return the version of this package: of package.xml where it lies beside it, else pip's."""
    try:
        return ElementTree.parse(resource('package.xml')).getroot().findtext('version') or ''
    except FileNotFoundError:
        pass  # a wheel of pip lacks it
    try:
        return version(PACKAGE.name)
    except PackageNotFoundError:
        return 'unknown'


def _homes(package: Path) -> list[Path]:
    """List the folders that may hold the shipped files, the source checkout first."""
    homes = [package.parent] if (package.parent / 'package.xml').is_file() else []
    shares = (prefix / 'share' / package.name for prefix in package.parents)
    homes += [share for share in shares if share.is_dir()]
    # If there is none, the error names the place where they should be.
    return homes or [package.parent]
