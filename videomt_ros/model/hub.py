"""Weights from the Hugging Face hub, kept in its own cache; the one user of huggingface_hub."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from videomt_ros.model.weight_files import INDEX, CheckpointError, weight_names

logger = logging.getLogger(__name__)


def is_hub_name(text: str) -> bool:
    """True for 'owner/name'; what starts with a dot or ends like a weight file is a path."""
    return bool(re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', text)) and not text.endswith(
        ('.pth', '.pt', '.bin', '.safetensors')
    )


def fetch_folder(repository: str) -> Path:
    """Folder with config.json and safetensors of a repository, downloaded unless it is cached.

    Raises:
        CheckpointError: there is no such repository, it is closed, or the hub is out of reach.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    patterns = ['config.json', '*.safetensors', INDEX]

    def download(local: bool) -> Path:
        path = snapshot_download(repository, allow_patterns=patterns, local_files_only=local)
        if not local and _weight_names(Path(path)) is None:
            # The hub's client takes any file that is in the cache for a good one. ValueError is
            # its word for a hub out of reach; then reading the folder names the damaged file.
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
    """Names of the weight files of a folder; None if the index that lists them is damaged."""
    try:
        return weight_names(folder)
    except CheckpointError:
        return None


def fetch_file(repository: str, file: str) -> Path:
    """One file of a repository, downloaded unless it is cached.

    Raises:
        CheckpointError: as for `fetch_folder`, or the repository has no such file.
    """
    from huggingface_hub import hf_hub_download

    def download(local: bool) -> Path:
        return Path(hf_hub_download(repository, file, local_files_only=local))

    return _fetch(f'{file} of {repository}', download, Path.is_file)


def is_cached(repository: str, file: str) -> bool:
    """True if the file was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, file), str)


def _fetch(what: str, download: Callable[[bool], Path], is_whole: Callable[[Path], bool]) -> Path:
    """Look into the cache, then download; the many errors of it become one line each.

    The cache comes first because a robot without a network would else wait half a minute for the
    hub at every start, and published weights do not change.
    """
    from huggingface_hub import errors

    try:
        cached = download(True)
        if is_whole(cached):
            return cached
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        pass  # not cached; what is wrong beyond that shows below
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
    """Keep a page of the client's warnings, one for each try, from hiding the error at its end."""
    theirs = logging.getLogger('huggingface_hub')
    level = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(level)
