"""Suites that others know, as problems of ours."""

from haloforge.benchmark.suites.catalogue import SUITES, Suite
from haloforge.benchmark.suites.loading import (
    PREFIX,
    SuiteProblems,
    each_problem,
    load_suite,
    suite_named,
    suite_of,
)
from haloforge.data.suites.style import BASE, INSTRUCT, Style

__all__ = [
    "BASE",
    "INSTRUCT",
    "PREFIX",
    "SUITES",
    "Style",
    "Suite",
    "SuiteProblems",
    "each_problem",
    "load_suite",
    "suite_named",
    "suite_of",
]
