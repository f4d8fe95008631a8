"""Weights from the Hugging Face hub and its cache; nothing else here uses huggingface_hub.

A download shows its size and progress: as lines where the log shows them, such as in the node, and
else as the bar of the hub's client, which it draws in a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from videomt_ros.errors import one_line
from videomt_ros.model.weight_files import INDEX, CheckpointError, weight_names

logger = logging.getLogger(__name__)

LINE_S = 10.0
"""Seconds between two lines on the progress of a download, if less than a tenth was added."""


LEAST_SIZE = 1_000_000
"""Bytes of a download from which on its progress is logged."""


class NotOnHubError(CheckpointError):
    """Raised for a repository or file that the hub does not have."""


def is_hub_name(text: str) -> bool:
    """Tell whether a text is 'owner/name'; one with a leading dot or a file's ending is a path."""
    return bool(re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', text)) and not text.endswith(
        ('.pth', '.pt', '.bin', '.safetensors', '.onnx')
    )


def fetch_folder(repository: str) -> Path:
    """Find the folder with config.json and safetensors of a repository; download it if need be.

    Raises:
        NotOnHubError: there is no such repository, or it is private.
        CheckpointError: it is closed, or the hub is out of reach.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    def download(progress: Any) -> Path:
        path = snapshot_download(repository, allow_patterns=_PATTERNS, tqdm_class=progress)
        if _weight_names(Path(path)) is None:
            # The hub's client takes any file in its cache for a good one. It raises ValueError
            # if the hub is out of reach; then reading the folder names the damaged file.
            with contextlib.suppress(ValueError):
                hf_hub_download(repository, INDEX, force_download=True)
        return Path(path)

    return cached_folder(repository) or _fetch(repository, download)


def cached_folder(repository: str) -> Path | None:
    """Find the folder of a repository in the cache; None if it is not there as a whole."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(
            snapshot_download(repository, allow_patterns=_PATTERNS, local_files_only=True)
        )
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None
    names = _weight_names(folder)
    is_whole = names is not None and all(
        (folder / name).is_file() for name in ('config.json', *names)
    )
    return folder if is_whole else None


_PATTERNS = ['config.json', '*.safetensors', INDEX]
"""Files of a repository that are downloaded."""


def _weight_names(folder: Path) -> list[str] | None:
    """List the weight files of a folder; None if the index that lists them is damaged."""
    try:
        return weight_names(folder)
    except CheckpointError:
        return None


def fetch_file(repository: str, file: str) -> Path:
    """Find one file of a repository; download it unless it is in the cache.

    Raises:
        NotOnHubError: there is no such repository or file, or it is private.
        CheckpointError: it is closed, or the hub is out of reach.
    """
    from huggingface_hub import hf_hub_download

    def download(progress: Any) -> Path:
        return Path(hf_hub_download(repository, file, tqdm_class=progress))

    found = cached_file(repository, file)
    return found or _fetch(f'{file} of {repository}', download)


def cached_file(repository: str, file: str) -> Path | None:
    """Find a file in the cache; None if it is not there."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        path = try_to_load_from_cache(repository, file)
    except errors.HFValidationError:
        return None
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def _fetch(what: str, download: Callable[[Any], Path]) -> Path:
    """Download what is not in the cache; each kind of error becomes one line.

    The cache comes first because a robot without a network would otherwise wait half a minute for
    the hub at every start, and published weights do not change.
    """
    from huggingface_hub import constants, errors

    if not constants.HF_HUB_OFFLINE:
        logger.info('Downloading %s from the Hugging Face hub.', what)
    kind = CheckpointError
    shows_lines = logger.isEnabledFor(logging.INFO)
    try:
        with _without_warnings():
            return download(_progress_lines(what) if shows_lines else None)
    except errors.GatedRepoError:
        problem = 'its owner gives access on request: ask on its page, then run `hf auth login`'
    except errors.RepositoryNotFoundError:
        kind = NotOnHubError
        problem = 'the hub has no such repository, or it is private; check the name'
    except errors.RemoteEntryNotFoundError:
        kind = NotOnHubError
        problem = 'the repository has no such file; it may have been renamed'
    except errors.HFValidationError:
        problem = 'that is no name a repository can have'
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        problem = (
            'it is not in the cache and the hub is out of reach; connect to the network once '
            '(and unset HF_HUB_OFFLINE), or give the path of a downloaded file'
        )
    except Exception as error:  # a download can fail in any way
        problem = (
            f'the download failed ({one_line(error, 120)}) and left nothing behind; '
            'try again later, or download the file with a tool that goes on where it was cut '
            '(curl -L -C - -O) and give its path'
        )
    raise kind(f'Expected {what} from the Hugging Face hub: {problem}.')


def _progress_lines(what: str) -> type:
    """Make a class that the hub's client uses like tqdm, and that logs the progress in lines.

    The client makes several for one download, of which two may count the same bytes.
    """
    from huggingface_hub.utils import tqdm

    told, lock = {'bytes': 0.0, 's': time.monotonic()}, threading.Lock()

    class ProgressLines(tqdm):
        """Counts bytes, and logs how many have come after each tenth or a while."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            self._is_of_bytes = keywords.get('unit') == 'B'
            super().__init__(*arguments, **{**keywords, 'disable': True})  # no bar

        def update(self, n: float | None = 1) -> None:
            """Count, and log a line if one is due."""
            self.n += n or 0
            total = self.total or 0
            if not self._is_of_bytes or total < LEAST_SIZE:
                return
            with lock:
                now_s = time.monotonic()
                is_due = self.n >= told['bytes'] + total / 10 or now_s >= told['s'] + LINE_S
                if self.n <= told['bytes'] or not (is_due or self.n == total):
                    return
                told.update(bytes=self.n, s=now_s)
            share = 100 * self.n / total
            logger.info('%s: %s of %s (%.0f %%)', what, size(self.n), size(total), share)

    return ProgressLines


def size(number: float) -> str:
    """Format a number of bytes, such as `97 MB` or `1.27 GB`."""
    if number >= 1e9:
        return f'{number / 1e9:.2f} GB'
    return f'{number / 1e6:.0f} MB' if number >= 1e8 else f'{number / 1e6:.1f} MB'


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the client, whose page of warnings, one per attempt, would hide the error."""
    client = logging.getLogger('huggingface_hub')
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
