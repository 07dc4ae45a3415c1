"""Pushes the current version of a dataset to the Hugging Face Hub, with huggingface_hub.

Data files go first, in commits of limited size, and what makes them visible (card, list of versions) goes
last, with the deletion of files that the version does not have any more. A push that was interrupted goes on
with the first commit that is missing: files that are there with the same SHA-256 are not sent again, and the
Hub does not ask for large files that it has received already. `HF_ENDPOINT` names another server. The token
is read from `HF_TOKEN` only: a token that is stored on the machine may belong to someone else.
"""

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from laion_etl import __version__
from laion_etl.core.errors import DamagedFileError, InputError, LaionEtlError, OutageError, RefusedError
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish.push_plan import PushPlan, Remote, Wanted

TOKEN = "HF_TOKEN"  # noqa: S105 - its name
_KIND = "dataset"
_BYTES_PER_READ = 1 << 20
_AGAIN = "run the same command again to continue"
_QUERY = re.compile(r"(?<=\w)\?[^\s'\"()]+")  # large files are uploaded to signed URLs
# Of the HTTP library that huggingface_hub uses, which is not the same in all versions.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]

_RETRIES = logging.getLogger("huggingface_hub.utils._http")  # it logs two lines for each try of a request
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
CommitOperation = CommitOperationAdd | CommitOperationDelete


class Hub:
    """A dataset repository on the Hub. Methods raise RefusedError, OutageError or InputError."""

    def __init__(self, repository: str) -> None:
        self.repository = repository
        disable_progress_bars()  # the command has one
        token = os.environ.get(TOKEN, "").strip()
        self._has_token = bool(token)
        self._api = HfApi(token=token or False, library_name="laion_etl", library_version=__version__)

    def plan(self, wanted: Wanted, store: Store) -> PushPlan:
        """Compare the repository, which may not exist yet, with what it should have."""
        with self._errors():
            return wanted.compare(self._files(), store)

    def push(self, plan: PushPlan, store: Store, on_bytes: Progress, *, private: bool) -> None:
        """Create the repository if there is none, and send what the plan names."""
        if not self._has_token:
            raise RefusedError(
                f"cannot push to {self.repository}: {TOKEN} is not set; set it to a token that may do so"
            )
        name = f"{plan.release.name} {plan.release.version}"
        with self._errors():
            self._api.create_repo(self.repository, repo_type=_KIND, private=private, exist_ok=True)
            sent = 0
            for files in plan.commits:
                self._commit_files(files, f"{name}: {quantity(len(files), 'file')}", store)
                sent += sum(file.bytes for _, file in files)
                on_bytes(sent, plan.bytes)
            if plan.root or plan.deleted:
                self._commit(
                    [
                        *(CommitOperationAdd(path, data) for path, data in plan.root),
                        *(CommitOperationDelete(path, is_folder=False) for path in plan.deleted),
                    ],
                    f"{name}: card and list of versions",
                )
            on_bytes(plan.bytes, plan.bytes)

    def _files(self) -> dict[str, Remote]:
        try:
            found = list(self._api.list_repo_tree(self.repository, repo_type=_KIND, recursive=True))
        except RepositoryNotFoundError:
            if self._has_token:
                return {}
            raise
        return {
            one.path: Remote(one.size, one.lfs.sha256 if one.lfs else "", one.blob_id)
            for one in found
            if isinstance(one, RepoFile)
        }

    def _commit_files(self, files: Sequence[tuple[str, Output]], message: str, store: Store) -> None:
        with tempfile.TemporaryDirectory(prefix="laion-etl-push-") as folder:
            copies = (
                (path, _checked(file, store, Path(folder) / str(n))) for n, (path, file) in enumerate(files)
            )
            self._commit([CommitOperationAdd(path, copy) for path, copy in copies], message)

    def _commit(self, operations: Sequence[CommitOperation], message: str) -> None:
        self._api.create_commit(self.repository, operations, repo_type=_KIND, commit_message=message)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise the errors of huggingface_hub as those of laion_etl, and log its retries as one line."""
        one_line = _FirstOnly()
        _RETRIES.addFilter(one_line)
        try:
            yield
        except LaionEtlError:
            raise
        except HfHubHTTPError as error:
            raise self._refusal(error) from error
        except (HFValidationError, ValueError) as error:
            raise InputError(f"cannot push to {self.repository}: {self._cause(error)}") from error
        except (_HTTP_ERROR, RuntimeError, OSError) as error:
            raise OutageError(f"cannot push to {self.repository}: {self._cause(error)}; {_AGAIN}") from error
        finally:
            _RETRIES.removeFilter(one_line)

    def _refusal(self, error: HfHubHTTPError) -> LaionEtlError:
        status = error.response.status_code
        if status in (401, 403, 404):
            return RefusedError(
                f"cannot push to {self.repository}: the Hub answers {status}; check the name, and "
                f"set {TOKEN} to a token that may write to it"
            )
        what = f"cannot push to {self.repository}: {self._cause(error)}"
        if status == 429 or status >= 500:
            return OutageError(f"{what}; {_AGAIN}")
        return InputError(what)

    @staticmethod
    def _cause(error: BaseException) -> str:
        """Return the error, and what caused it, in one line, without what allows an upload."""
        found = (
            _QUERY.sub("", " ".join(str(one).split())).rstrip(".")
            for one in (error, error.__cause__)
            if one is not None
        )
        return ": ".join(dict.fromkeys(filter(None, found)))[:300] or type(error).__name__


class _FirstOnly(logging.Filter):
    """Logs the first warning as a line of laion_etl, and leaves out those that follow."""

    def __init__(self) -> None:
        super().__init__()
        self._logged = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if not self._logged:
            self._logged = True
            _log.warning("the Hub is not available, trying again: %s", " ".join(record.getMessage().split()))
        return False


def _checked(file: Output, store: Store, place: Path) -> Path:
    """Return a local file with the content of a file of the store: itself, or a copy at `place`.

    Raises DamagedFileError if it is not what the manifest lists.
    """
    digest, local = hashlib.sha256(), isinstance(store, LocalStore)
    with store.open(file.name) as source, (Path(os.devnull) if local else place).open("wb") as copy:
        while block := source.read(_BYTES_PER_READ):
            digest.update(block)
            copy.write(block)
    if digest.hexdigest() != file.sha256:
        raise DamagedFileError(
            f"cannot push {store.uri(file.name)}: it is not the file that the manifest lists; restore it"
        )
    return store.root / file.name if isinstance(store, LocalStore) else place
