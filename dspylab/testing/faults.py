"""What the fake server does wrong on purpose. Pure, except that drawing advances a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

ERROR_TYPES = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one request.

    Attributes:
        kind: ``status`` answers with an error status, ``cut`` closes the connection in the middle of the
            reply, ``garbage`` sends broken JSON, ``hang`` never answers.
        status: HTTP status (kind ``status``).
        body: Body of the error; a mapping is sent as JSON, a string as it is. Default: OpenAI's shape.
        echo_key: Repeat the Authorization header in the message, as some providers do.
        retry_after_s: Value of a Retry-After header, in seconds; None sends none.
        after_tokens: Tokens that are sent before the fault (kinds ``cut`` and ``garbage``, streams only).
    """

    kind: Literal["status", "cut", "garbage", "hang"]
    _: KW_ONLY
    status: int = 500
    body: Mapping[str, Any] | str | None = None
    echo_key: bool = False
    retry_after_s: float | None = None
    after_tokens: int = 1

    @property
    def name(self) -> str:
        """What the request's record says: the kind, or the status."""
        return f"status {self.status}" if self.kind == "status" else self.kind


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Faults that befall requests at random, at given rates (0 to 1; their sum is at most 1).

    The generator is seeded and is asked once for every request that is not refused, in order of arrival, so
    the same seed gives the same faults.

    Attributes:
        rate_429: Share of requests that get status 429.
        rate_500: Share that get status 500.
        rate_cut: Share that are cut in the middle of the reply.
        rate_garbage: Share that get broken JSON.
        rate_hang: Share that are never answered.
        retry_after_s: Retry-After header of the 429s, in seconds; None sends none.
        seed: Seed of the generator.
    """

    rate_429: float = 0.0
    rate_500: float = 0.0
    rate_cut: float = 0.0
    rate_garbage: float = 0.0
    rate_hang: float = 0.0
    retry_after_s: float | None = None
    seed: int = 0

    def generator(self) -> random.Random:
        """Return a fresh generator for `draw`."""
        return random.Random(self.seed)

    def draw(self, generator: random.Random) -> Fault | None:
        """Draw the fate of the next request."""
        faults = (
            (self.rate_429, Fault("status", status=429, retry_after_s=self.retry_after_s)),
            (self.rate_500, Fault("status", status=500)),
            (self.rate_cut, Fault("cut")),
            (self.rate_garbage, Fault("garbage")),
            (self.rate_hang, Fault("hang")),
        )
        place = generator.random()
        for rate, fault in faults:
            if place < rate:
                return fault
            place -= rate
        return None


def error_body(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """Build an error in OpenAI's shape.

    Args:
        status: HTTP status, which decides ``type``.
        message: What the client is told.
        code: OpenAI's word for it; default: the usual one of the status.

    Returns:
        The JSON body.
    """
    kind, usual_code = ERROR_TYPES.get(status, ("server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code or usual_code}}
