"""Who is asked: the backends that are known by name, and any address that speaks as OpenAI's."""

import json
import os
from functools import cache
from http.client import HTTPException
from importlib.resources import files
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationInfo, field_validator

from haloforge.data.specs import read_spec
from haloforge.errors import InputError
from haloforge.store.storage import check_address

ANY_KEY = "HALOFORGE_API_KEY"
"""The environment variable with the key of an address of one's own, where that wants one."""
OTHERS = "others"
"""In prices: of every model that has none of its own."""
_NO_KEY = "none"  # the client wants one, and sends it
_ANY_COUNT = 20
_MODELS_S = 10.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(_Strict):
    """In USD for a million tokens, read and written."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Backend(_Strict):
    """An address, and how it is asked.

    `key` names the environment variable that holds the key, None where there is none; with `open`
    it need not be set. An empty `model` is the first that the address lists. `limit_field` is what
    a request calls the most tokens of an answer. `prices` are by model, as `priced` says.
    """

    url: str
    key: str | None = None
    open: bool = False
    model: str = ""
    count: int = Field(ge=1)
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    prices: dict[str, Price] = {}
    priced: str | None = None

    @field_validator("priced")
    @classmethod
    def _sourced(cls, priced: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("prices") and not priced:
            raise ValueError("expected where the prices were read")
        return priced

    def api_key(self) -> str:
        """Raises InputError where it must be set and is not, or cannot be sent."""
        found = os.environ.get(self.key, "").strip() if self.key else ""
        if not found and self.key and not self.open:
            raise InputError(f"{self.url} wants a key: set {self.key} in the environment")
        if not (found.isascii() and found.isprintable()):
            raise InputError(f"{self.key} holds what no key does: expected one line of ASCII")
        return found or _NO_KEY

    def refused(self, said: str) -> InputError:
        """What a server means that does not accept the key, or that none was sent."""
        sent = self.key and os.environ.get(self.key, "").strip()
        if sent or not self.key:
            what = f"the key in {self.key}" if sent else "a request with no key"
            return InputError(f"{self.url}: {what} is not accepted ({said})")
        return InputError(f"{self.url} wants a key: set {self.key} in the environment ({said})")

    @property
    def price(self) -> Price | None:
        return self.prices.get(self.model) or self.prices.get(OTHERS)


class _Backends(RootModel[dict[str, Backend]]):
    pass


@cache
def backends() -> dict[str, Backend]:
    """The known backends by name."""
    text = (files(__package__) / "backends.yaml").read_text("utf-8")
    return read_spec(text, "backends.yaml", _Backends, "backends").root


def find_backend(name: str, model: str | None) -> Backend:
    """The backend of that name or at that URL, to be asked for `model`; by default for its own, or
    where it has none for the first that the address lists, which is asked for that.

    Raises InputError for an unknown name, a URL with credentials, and an address that lists none.
    """
    found = backends().get(name) or _at(name)
    chosen = model or found.model or _first_model(found)
    return found.model_copy(update={"model": chosen})


def _at(url: str) -> Backend:
    if "://" not in url:
        listed = ", ".join(backends())
        raise InputError(f"no backend '{url}'; known: {listed}, or a URL such as http://host/v1")
    check_address(url)
    if not _is_address(url):
        raise InputError(f"{url}: expected an address such as http://localhost:8000/v1")
    return Backend(url=url.rstrip("/"), key=ANY_KEY, open=True, count=_ANY_COUNT)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        whole = parts.hostname and parts.port != 0  # which raises for one that is none
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return bool(
        plain and whole and parts.scheme in ("http", "https") and not parts.query + parts.fragment
    )


def _first_model(backend: Backend) -> str:
    request = Request(f"{backend.url}/models")
    request.add_unredirected_header("Authorization", f"Bearer {backend.api_key()}")
    try:
        with urlopen(request, timeout=_MODELS_S) as reply:
            return str(json.load(reply)["data"][0]["id"])
    except HTTPError as error:
        if error.code in (401, 403):
            raise backend.refused(f"{error.code}") from None
        why = f"{error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        why = str(getattr(error, "reason", error))
    except (IndexError, KeyError, TypeError, ValueError):
        why = "no list of models"
    raise InputError(f"{backend.url}: lists no model ({why}); is it up? Or name one with --model")
