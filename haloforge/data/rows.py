"""A row of someone's data set, by its own field names."""

from typing import Any

from haloforge.errors import InputError


class Row(dict[str, Any]):
    """A row of a data set, which knows its place; a field that is missing is an InputError."""

    def __init__(self, fields: dict[str, Any], place: str) -> None:
        super().__init__(fields)
        self.place = place

    def __missing__(self, name: str) -> Any:
        raise InputError(f"{self.place}: field '{name}' is missing")
