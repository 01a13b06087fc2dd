"""Weights from a model hub: what stands where a path can stand, and is found by `owner/name`.

`locate` turns either into a path on this machine. Of a repository, the weights and the settings
beside them are downloaded and nothing else, by huggingface_hub, into the cache that all its users
share. There they are found again without a network, by the commit that a run writes down.
"""

import errno
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitreous.core.console import Console
from vitreous.core.files import write_text
from vitreous.data.remote import name_of
from vitreous.errors import (
    ConfigError,
    RunError,
    StorageError,
    VitreousError,
    WeightsError,
    first_line,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

_ID = re.compile(
    r"(?P<marked>hf:/{1,2}|hf-hub:)?(?P<repo>(?P<owner>\w[\w.-]*)/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?",
    re.ASCII,
)
#: What names of timm's models look like: vit_base_patch16_224.augreg_in21k.
_TIMM = re.compile(r"(vit|deit3?|beit|eva|flexivit)\w*_\w+(\.\w+)?$")
#: Names that end so are meant as files.
_FILES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".npz", ".h5", ".keras", ".json", ".onnx")
#: Weights under a name of their own; .bin and .pt are the state of optimisers as often.
_OTHER_WEIGHTS = (".safetensors", ".npz", ".pth")
#: What an operating system says of a folder that takes no more, or nothing at all.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class HubId:
    """A model on a hub.

    Args:
        repo: owner and name.
        revision: a branch, a tag, or the commit that they stand for.

    As text it has its mark, which no folder named like the owner takes away.
    """

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Place:
    """Where weights lie.

    Args:
        path: on this machine; of a repository, the file of weights or its index.
        id: with its commit, where they are from a hub.
    """

    path: Path
    id: HubId | None = None


def called(where: str | PathLike[str]) -> str:
    """What a model is called: the repository's name on a hub, or a file's or folder's own.

    Example:
        >>> called("hf://owner/vit@refs/pr/1")
        'vit'
    """
    found = hub_id(where)
    return found.repo.rpartition("/")[2] if found else name_of(Path(where))


def hub_id(where: str | PathLike[str]) -> HubId | None:
    """What a name means on a hub: ``owner/name[@revision]``, also behind ``hf://`` or ``hf-hub:``.

    A path that exists is never an id, nor is a name in a folder that exists, or one of a file of
    weights: they are mistyped paths, which no hub needs to hear of. With a mark in front they are.

    Raises:
        ConfigError: for a mark without an id behind it.

    Example:
        >>> str(hub_id("hf://timm/vit_tiny_patch16_224.augreg_in21k@main"))
        'hf://timm/vit_tiny_patch16_224.augreg_in21k@main'
        >>> hub_id("weights/vit.safetensors") is None
        True
    """
    text = where if isinstance(where, str) else Path(where).as_posix()
    if Path(text).exists():
        return None
    match = _ID.fullmatch(text)
    if match is None or ".." in text:
        if text.startswith(("hf:/", "hf-hub:")):
            raise ConfigError(f"{text} is no id: write hf://owner/name or hf://owner/name@revision")
        return None
    if not match["marked"] and (Path(match["owner"]).exists() or text.endswith(_FILES)):
        return None
    return HubId(match["repo"], match["revision"] or "main")


def locate(where: str | PathLike[str], console: Console) -> Place:
    """A path as it is, and a model on a hub as what was, or is now, downloaded.

    Args:
        where: path or id; what exists as a path is one.
        console: is told what is downloaded, or that it is an older copy because of no network.

    Raises:
        ConfigError: for what can't be an id.
        RunError: where there is no such path and it can't be an id.
        StorageError: where the cache can't be written.
        WeightsError: where the hub has no such model, doesn't give it, or can't be reached.
    """
    wanted, path = hub_id(where), Path(where)
    if wanted is not None:
        try:
            return _fetch(wanted, console)
        except WeightsError as error:
            if str(path).startswith(("hf:/", "hf-hub:")):  # nothing else can be meant
                raise
            raise WeightsError(f"{path} does not exist here, and {error}") from None
    if not path.exists():
        is_timm = _TIMM.match(str(path)) and not str(path).endswith(_FILES)
        timm = f" (timm's: hf://timm/{path})" if is_timm else ""
        raise RunError(
            f"{path} does not exist: name a run, a file or folder of weights, or a model on the "
            f"hub as hf://owner/name or hf://owner/name@revision{timm}"
        )
    return Place(path)


def _fetch(wanted: HubId, console: Console) -> Place:
    """Ask the hub, unless the commit is named and all its files are in the cache."""
    from vitreous.model.weights.naming import listed

    try:
        from huggingface_hub import HfApi, constants
    except ImportError:
        raise WeightsError(
            f"{wanted} is on a hub, which needs huggingface_hub: pip install 'vitreous[hub]', or "
            "name a local file or folder"
        ) from None
    cache = Path(constants.HF_HUB_CACHE)
    cached = _cached(cache, wanted)
    unsought = _unsought(cache, cached) if cached else []
    is_pinned = cached is not None and cached.id == wanted
    if cached and is_pinned and not unsought:
        return cached
    with _discreetly():
        api = HfApi(headers={"user-agent": "vitreous"})
        try:
            found = api.model_info(
                wanted.repo,
                revision=wanted.revision,
                files_metadata=True,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
            pinned = HubId(wanted.repo, found.sha or wanted.revision)
            path = _download(api, cache, pinned, found.siblings or [], console)
        except VitreousError:
            raise
        except Exception as error:
            if cached and (is_pinned or _is_unreachable(error)):
                what = "can't be reached" if _is_unreachable(error) else "didn't give it"
                lacks = f", where {listed(unsought)} may be missing" if unsought else ""
                console.info(
                    f"{api.endpoint} {what} ({_reason(error)}): {cached.id} is taken from the "
                    f"cache{lacks}"
                )
                return cached
            raise _told(error, wanted, api.endpoint, cache) from None
    if pinned != wanted:
        with suppress(OSError, StorageError):  # a cache that can only be read is fine too
            ref = _part(cache, "refs", wanted)
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_text(ref, pinned.revision)
    return Place(path, pinned)


@contextmanager
def _discreetly() -> Iterator[None]:
    """huggingface_hub tells nobody about this machine, and takes files over plain HTTPS.

    It would send PyTorch's version and ask for a list of programs to look for in the environment,
    and take files in pieces from other hosts by a library of its own. Parts of a MiB move the bar
    on slow lines, and no more than one is lost in a cut.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    ours = {
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": 2**20,
    }
    before = {name: getattr(constants, name) for name in ours}
    verbosity = logging.get_verbosity()
    try:
        for name, value in ours.items():
            setattr(constants, name, value)
        logging.set_verbosity_error()  # its errors are told here, in one line
        yield
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
        logging.set_verbosity(verbosity)


def _part(cache: Path, kind: Literal["snapshots", "refs", ".no_exist"], id: HubId) -> Path:
    """Where huggingface_hub keeps something of a revision; the layout of its cache is documented.

    Args:
        cache: of all repositories.
        kind: a commit's files, which commit a branch or tag stood for, or empty files with the
            names of those that a commit is known not to have.
        id: of the commit, the branch or the tag.
    """
    return cache / f"models--{id.repo.replace('/', '--')}" / kind / id.revision


def _cached(cache: Path, wanted: HubId) -> Place | None:
    """What lies in the cache of a revision, if its weights do."""
    from vitreous.model.weights.files import is_index, shard_names

    ref = _part(cache, "refs", wanted)
    pinned = replace(wanted, revision=ref.read_text(encoding="utf-8")) if ref.is_file() else wanted
    folder = _part(cache, "snapshots", pinned)
    # A name stays where the file that it points to was removed.
    names = [path.name for path in folder.glob("*") if path.exists()]
    weights = _weights_among(names)
    if weights is None:
        return None
    path = folder / weights
    if is_index(path) and not all((folder / name).exists() for name in shard_names(path)):
        return None
    return Place(path, pinned)


def _unsought(cache: Path, cached: Place) -> list[str]:
    """Settings that may belong to weights in the cache, which another program fetched alone."""
    from vitreous.model.weights.files import FOLDER_FILES, SETTINGS_FILES

    assert cached.id is not None
    if cached.path.name not in FOLDER_FILES:  # nothing beside such a file is read
        return []
    known = [cached.path.parent, _part(cache, ".no_exist", cached.id)]
    return [name for name in SETTINGS_FILES if not any((place / name).exists() for place in known)]


def _weights_among(names: Collection[str]) -> str | None:
    """Which of a repository's files is read: the one of a usual name, or else the only one."""
    from vitreous.model.weights.files import FOLDER_FILES

    usual = [name for name in FOLDER_FILES if name in names]
    others = [name for name in names if "/" not in name and name.endswith(_OTHER_WEIGHTS)]
    return usual[0] if usual else others[0] if len(others) == 1 else None


def _download(
    api: "HfApi", cache: Path, pinned: HubId, files: "Sequence[RepoSibling]", console: Console
) -> Path:
    """The weights' path, with all that belongs to them in the cache.

    Raises:
        WeightsError: where the repository has no weights, or they came damaged.
    """
    from vitreous.model.weights.files import SETTINGS_FILES, is_index, shard_names
    from vitreous.model.weights.naming import listed

    there = {file.rfilename: file for file in files}
    weights = _weights_among(there)
    if weights is None:
        raise WeightsError(
            f"{api.endpoint}/{pinned.repo} has no weights that are read here (model.safetensors, "
            "pytorch_model.bin, or a single .safetensors, .npz or .pth), only "
            f"{listed(sorted(there)) or 'nothing'}: name another, or download a file and name that"
        )
    folder, absent = (_part(cache, kind, pinned) for kind in ("snapshots", ".no_exist"))

    def get(*names: str) -> None:
        missing = [name for name in names if name in there and not (folder / name).exists()]
        if missing:
            _get(api, pinned, [there[name] for name in missing], console)

    get(*SETTINGS_FILES, weights)  # weights come last: what was cut off has none
    if is_index(folder / weights):
        get(*shard_names(folder / weights))
    with suppress(OSError):  # which only means that the hub is asked again
        absent.mkdir(parents=True, exist_ok=True)
        for name in SETTINGS_FILES:
            if name not in there:
                (absent / name).touch()
    return folder / weights


def _get(api: "HfApi", pinned: HubId, files: "Sequence[RepoSibling]", console: Console) -> None:
    """Download files into the cache, with progress, and compare them with their checksums."""
    from huggingface_hub.utils import silent_tqdm

    total = sum(file.size or 0 for file in files)
    console.info(f"downloading {pinned} from {api.endpoint}: {total / 1e6:.1f} MB")
    done = 0
    with console.task("downloading, MB", max(1, round(total / 1e6))) as task:

        class Bar(silent_tqdm):
            def update(self, n: float | None = 1) -> None:
                nonlocal done
                done += int(n or 0)
                task.update(round(done / 1e6))

        for file in files:
            path = api.hf_hub_download(
                pinned.repo,
                file.rfilename,
                revision=pinned.revision,
                tqdm_class=Bar,  # pyright: ignore[reportArgumentType]
            )
            _check(Path(path), file, pinned)


def _check(path: Path, file: "RepoSibling", pinned: HubId) -> None:
    """Refuse, and delete, what isn't what the hub listed.

    Raises:
        WeightsError: naming both checksums.
    """
    listed = file.lfs.sha256 if file.lfs else file.blob_id
    with path.open("rb") as content:
        if file.lfs:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        else:  # git's own name of a file
            blob = content.read()
            digest = hashlib.sha1(f"blob {len(blob)}\0".encode() + blob).hexdigest()
    if listed is None or digest == listed:
        return
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise WeightsError(
        f"{file.rfilename} of {pinned} came damaged (its checksum is {digest}, not {listed}) and "
        "was deleted: try again"
    )


def _is_unreachable(error: Exception) -> bool:
    """Whether the hub gave no answer, or none but that it has failed itself."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    # The HTTP library is another one from version to version; its errors have one root.
    transport = errors.HfHubHTTPError.__bases__[0]
    offline = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)
    return isinstance(error, (transport, *offline))


def _reason(error: Exception) -> str:
    """What the network said, in a few words."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _reason(error.__cause__)
    return first_line(error)


def _told(error: Exception, wanted: HubId, endpoint: str, cache: Path) -> VitreousError:
    """What went wrong and what to do, in one line."""
    from huggingface_hub import errors

    page = f"{endpoint}/{wanted.repo}"
    token = f"set HF_TOKEN to a token of an account that may read it ({endpoint}/settings/tokens)"
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(f"{page} is gated: ask for access on that page, then {token}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"{wanted.repo} is neither a path here nor a repository on {endpoint} that may be "
            f"read: check the name; if it is private, {token}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(
            f"{page} has no revision '{wanted.revision}': name a branch, a tag or a commit of it, "
            "or leave it out for main"
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return WeightsError(
            f"{endpoint} refuses the token in use ({_reason(error)}): unset HF_TOKEN, or {token}"
        )
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StorageError(
            f"can't write {wanted} to {cache}: {error.strerror}; make room, or set HF_HOME to "
            "another folder"
        )
    if _is_unreachable(error):
        return WeightsError(
            f"{wanted} is not in the cache ({cache}), and the connection to {endpoint} failed "
            f"({_reason(error)}): try again with a network, set HF_ENDPOINT to a mirror, or name a "
            "local file or folder"
        )
    return WeightsError(
        f"{endpoint} didn't give {wanted} ({_reason(error)}): try again, or download its files "
        "yourself and name them"
    )
