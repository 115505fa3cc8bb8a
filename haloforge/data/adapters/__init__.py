"""Adapters by the names that entries of the catalogue call them: one for each family of rows."""

from typing import Any

from haloforge.data.adapters.adapter import Adapted, Adapter, LeftOut
from haloforge.data.adapters.apps import APPS
from haloforge.data.adapters.code_contests import CODE_CONTESTS
from haloforge.data.adapters.codeforces import CODEFORCES_ANSWERS, CODEFORCES_PROBLEMS
from haloforge.data.adapters.humaneval import HUMANEVAL
from haloforge.data.adapters.livecodebench import LIVECODEBENCH
from haloforge.data.adapters.mbpp import MBPP
from haloforge.data.adapters.own import CHAT, INSTRUCTIONS, PROBLEMS

ADAPTERS: dict[str, Adapter[Any]] = {
    "apps": APPS,
    "chat": CHAT,
    "code_contests": CODE_CONTESTS,
    "codeforces": CODEFORCES_PROBLEMS,
    "codeforces_cots": CODEFORCES_ANSWERS,
    "humaneval": HUMANEVAL,
    "instruction": INSTRUCTIONS,
    "livecodebench": LIVECODEBENCH,
    "mbpp": MBPP,
    "problem": PROBLEMS,
}

__all__ = ["ADAPTERS", "Adapted", "Adapter", "LeftOut"]
