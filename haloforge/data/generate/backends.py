"""Who is asked: the backends that are known by name, and any address that speaks as OpenAI's."""

import os
from functools import cache
from importlib.resources import files
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationInfo, field_validator

from haloforge.data.specs import read_spec
from haloforge.errors import InputError
from haloforge.store.storage import check_address

ANY_KEY = "HALOFORGE_API_KEY"
"""The environment variable with the key of an address of one's own, where that wants one."""
_NO_KEY = "none"  # the client wants one, and sends it
_ANY_COUNT = 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(_Strict):
    """In USD for a million tokens, read and written."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Backend(_Strict):
    """An address, and how it is asked.

    `key` names the environment variable that holds the key, None where there is none; with `open`
    it need not be set. `limit_field` is what a request calls the most tokens of an answer. `prices`
    are by model, as `priced` says.
    """

    url: str
    key: str | None = None
    open: bool = False
    model: str
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
        """Raises InputError where it must be set and is not."""
        found = os.environ.get(self.key, "").strip() if self.key else ""
        if not found and self.key and not self.open:
            raise InputError(f"{self.url} wants a key: set {self.key} in the environment")
        return found or _NO_KEY

    @property
    def price(self) -> Price | None:
        return self.prices.get(self.model)


class _Backends(RootModel[dict[str, Backend]]):
    pass


@cache
def backends() -> dict[str, Backend]:
    """The known backends by name."""
    text = (files(__package__) / "backends.yaml").read_text("utf-8")
    return read_spec(text, "backends.yaml", _Backends, "backends").root


def find_backend(name: str, model: str | None) -> Backend:
    """The backend of that name or at that URL, to be asked for `model`; its own by default.

    Raises InputError for an unknown name, a URL with credentials, and a URL without a model.
    """
    known = backends().get(name)
    if known is not None:
        return known.model_copy(update={"model": model}) if model else known
    if "://" not in name:
        listed = ", ".join(backends())
        raise InputError(f"no backend '{name}'; known: {listed}, or a URL such as http://host/v1")
    check_address(name)
    parts = urlsplit(name)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise InputError(f"{name}: expected an address such as http://localhost:8000/v1")
    if model is None:
        raise InputError(f"{name}: which model there? Name it with --model")
    return Backend(url=name.rstrip("/"), key=ANY_KEY, open=True, model=model, count=_ANY_COUNT)
