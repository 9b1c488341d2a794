"""The providers that LiteLLM knows, as it is installed. Those of DSPy's own engine are all among them."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Final

#: The enumeration of providers in LiteLLM's source, and its members.
_ENUMERATION: Final = re.compile(r"^class LlmProviders\b.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_MEMBER: Final = re.compile(r"^    \w+ = \"([^\"]+)\"", re.MULTILINE)
#: Where it lies, and providers that are but an address.
_SOURCE: Final = "types/utils.py"
_ADDRESSES: Final = "llms/openai_like/providers.json"


@functools.cache
def known_providers() -> frozenset[str]:
    """What may stand before the first slash of a model's name.

    Returns:
        The names; none if LiteLLM does not keep them where it used to, so that nothing is known.
    """
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:  # pragma: no cover - it is required
        return frozenset()
    return providers_in(Path(spec.origin).parent)


def providers_in(folder: Path) -> frozenset[str]:
    """As `known_providers`, of the package in a folder: read, for its import takes seconds."""
    try:
        source = _ENUMERATION.search((folder / _SOURCE).read_text(encoding="utf-8"))
        addresses = json.loads((folder / _ADDRESSES).read_bytes())
    except (OSError, ValueError):
        return frozenset()
    names = frozenset(_MEMBER.findall(source.group())) if source else frozenset()
    return names.union(addresses) if "openai" in names else frozenset()
