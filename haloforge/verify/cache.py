"""Judgements kept by what was judged: the same program, tests and limits are not run twice.

A policy repeats itself: in RAFT a third of its right answers are programs that came before.
"""

import functools
import hashlib
import json
import platform
import sqlite3
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from haloforge.schema import Outcome
from haloforge.verify.judges import Judgement

ROWS = 200_000  # 1 GB if each had diagnostics at their cap
WAIT_S = 30.0  # while another actor of this machine writes
TABLE = "CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, judgement TEXT NOT NULL)"
FORGET = "DELETE FROM judgements WHERE rowid <= (SELECT max(rowid) FROM judgements) - ?"


def content_key(*parts: Any) -> str:
    """SHA-256 over `parts` as JSON and over the judge's own code, a change of which may change all.

    Whole, since hostile programs are among what it tells apart.
    """
    return hashlib.sha256(json.dumps([_judge_digest(), *parts]).encode()).hexdigest()


@functools.cache
def _judge_digest() -> str:
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


class JudgementCache:
    """Judgements on this machine's disk, shared by its actors and kept over runs.

    Only what is lasting is kept: no time-out or near time-out, no failure of the machine or of
    ours. Opening it forgets all but the newest `rows`. Where the disk fails, a warning says so and
    programs are judged anew.
    """

    def __init__(self, folder: Path, rows: int = ROWS) -> None:
        self._database: sqlite3.Connection | None = None
        self.hits = 0
        # SQLite's log works on one machine: those that share a home have a file each.
        self.path = folder / f"judgements-{platform.node()}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self.path, WAIT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        self._execute("PRAGMA journal_mode=WAL")
        self._execute("PRAGMA synchronous=NORMAL")
        self._execute(TABLE)
        self._execute(FORGET, rows)

    def get(self, key: str) -> Judgement | None:
        """What was judged under `key`, None if nothing was."""
        found = self._execute("SELECT judgement FROM judgements WHERE key = ?", key)
        if not found:
            return None
        self.hits += 1
        fields = json.loads(found[0][0])
        return Judgement(**{**fields, "outcome": Outcome(fields["outcome"])})

    def put(self, key: str, judgement: Judgement) -> None:
        """Keeps `judgement` under `key`, if it will hold again."""
        if judgement.lasting and judgement.outcome is not Outcome.INFRA_ERROR:
            text = json.dumps(asdict(judgement), ensure_ascii=False)
            self._execute("INSERT OR IGNORE INTO judgements VALUES (?, ?)", key, text)

    def _execute(self, statement: str, *values: Any) -> list[Any]:
        if self._database is None:
            return []
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _give_up(self, error: Exception) -> None:
        self._database = None
        warnings.warn(f"judging without a cache: {self.path}: {error}", stacklevel=3)
