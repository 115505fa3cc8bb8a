"""Errors by boundary: what the user can fix, and what failed on our side.

A bad sample is neither: it is data, and ends as an outcome of its verdict.
"""


class HaloforgeError(Exception):
    """Base of every error that is shown as one line, without a traceback."""

    exit_code = 1


class InputError(HaloforgeError):
    """The user's input or settings are wrong; the message says where and what was expected."""

    exit_code = 2


class ResourceError(HaloforgeError):
    """The machine or cluster cannot do what was asked; the message names the setting to change."""

    exit_code = 3


class InfraError(HaloforgeError):
    """A failure of ours (dead actor, missing compiler, full disk): never a sample's fault."""

    exit_code = 4


AT_FAULT = "the problem's "


class ProblemFaultError(InfraError):
    """A problem's own tests or checker are at fault, so that nothing is known of its answers. Its
    message begins with AT_FAULT, by which the diagnostics of an `infra_error` tell it."""
