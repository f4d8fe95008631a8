"""Weights from the Hugging Face hub and its cache; nothing else here uses huggingface_hub."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from videomt_ros.model.weight_files import INDEX, CheckpointError, weight_names

logger = logging.getLogger(__name__)


def is_hub_name(text: str) -> bool:
    """Tell whether a text is 'owner/name'; one with a leading dot or a file's ending is a path."""
    return bool(re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', text)) and not text.endswith(
        ('.pth', '.pt', '.bin', '.safetensors', '.onnx')
    )


def fetch_folder(repository: str) -> Path:
    """Find the folder with config.json and safetensors of a repository; download it if need be.

    Raises:
        CheckpointError: there is no such repository, it is closed, or the hub is out of reach.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    patterns = ['config.json', '*.safetensors', INDEX]

    def download(local: bool) -> Path:
        path = snapshot_download(repository, allow_patterns=patterns, local_files_only=local)
        if not local and _weight_names(Path(path)) is None:
            # The hub's client takes any file in its cache for a good one. It raises ValueError
            # if the hub is out of reach; then reading the folder names the damaged file.
            with contextlib.suppress(ValueError):
                hf_hub_download(repository, INDEX, force_download=True)
        return Path(path)

    def is_whole(folder: Path) -> bool:
        names = _weight_names(folder)
        return names is not None and all(
            (folder / name).is_file() for name in ('config.json', *names)
        )

    return _fetch(repository, download, is_whole)


def _weight_names(folder: Path) -> list[str] | None:
    """List the weight files of a folder; None if the index that lists them is damaged."""
    try:
        return weight_names(folder)
    except CheckpointError:
        return None


def fetch_file(repository: str, file: str) -> Path:
    """Find one file of a repository; download it unless it is in the cache.

    Raises:
        CheckpointError: there is no such repository or file, it is closed, or the hub is out of
            reach.
    """
    from huggingface_hub import hf_hub_download

    def download(local: bool) -> Path:
        return Path(hf_hub_download(repository, file, local_files_only=local))

    return _fetch(f'{file} of {repository}', download, Path.is_file)


def cached_file(repository: str, file: str) -> Path | None:
    """Find a file in the cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, file)
    return Path(path) if isinstance(path, str) else None


def _fetch(what: str, download: Callable[[bool], Path], is_whole: Callable[[Path], bool]) -> Path:
    """Look into the cache, then download; each kind of error becomes one line.

    The cache comes first because a robot without a network would otherwise wait half a minute for
    the hub at every start, and published weights do not change.
    """
    from huggingface_hub import errors

    try:
        cached = download(True)
        if is_whole(cached):
            return cached
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        pass  # not cached; any other fault shows below
    logger.info('Downloading %s from the Hugging Face hub.', what)
    try:
        with _without_warnings():
            return download(False)
    except errors.GatedRepoError:
        problem = 'its owner gives access on request: ask on its page, then run `hf auth login`'
    except errors.RepositoryNotFoundError:
        problem = 'the hub has no such repository, or it is private; check the name'
    except errors.RemoteEntryNotFoundError:
        problem = 'the repository has no such file; it may have been renamed'
    except errors.HFValidationError:
        problem = 'that is no name a repository can have'
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        problem = (
            'it is not in the cache and the hub is out of reach; connect to the network once '
            '(and unset HF_HUB_OFFLINE), or give the path of a downloaded file'
        )
    except Exception as error:  # a download can fail in any way
        problem = f'the download failed ({" ".join(str(error).split())[:120]}); try again later'
    raise CheckpointError(f'Expected {what} from the Hugging Face hub: {problem}.')


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
