"""Fixtures that every test may use: a tiny Llama with its tokenizer, made offline."""

from pathlib import Path

import pytest

from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama; see `make_tiny_model`."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
