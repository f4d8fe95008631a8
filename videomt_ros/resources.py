"""Where the shipped files lie: `models/`, `config/` and `launch/`.

They are beside the package in a source checkout, and in `share/videomt_ros` of the prefix that the
package was installed into, by colcon and by pip alike.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).absolute().parent
"""Not resolved: a symbolic link leads out of the prefix it was installed into."""


def resource(*parts: str) -> Path:
    """Find a shipped file or folder, such as `resource('config', 'segmenter.yaml')`.

    Returns:
        Its path, which exists.

    Raises:
        FileNotFoundError: it was not shipped; the message says where it was looked for.
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


def _homes(package: Path) -> list[Path]:
    """Folders that may hold the shipped files, the source checkout first."""
    homes = [package.parent] if (package.parent / 'package.xml').is_file() else []
    shares = (prefix / 'share' / package.name for prefix in package.parents)
    homes += [share for share in shares if share.is_dir()]
    # Nothing there: name the place where an installation would have put them.
    return homes or [package.parent]
