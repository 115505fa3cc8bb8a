"""Serving from the command line: the app is there for as long as the command, or stays."""

import os
import socket
import time

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from haloforge.errors import InputError, ResourceError
from haloforge.placement import Placement
from haloforge.report.quiet import loggers_to_files
from haloforge.serve.app import API_KEY, build
from haloforge.serve.catalogue import Catalogue
from haloforge.session import Session

APPLICATION = "haloforge"
_LOOK_S = 2.0
_TELL_S = 15.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::")


def run_app(session: Session, detach: bool = False) -> None:
    """Serves until Ctrl-C or SIGTERM; with `detach` it only starts, or changes, what a cluster
    serves. Raises ResourceError where it does not fit or does not start."""
    settings, report = session.settings, session.report
    loggers_to_files()  # of Ray Serve, which came with it
    if detach and session.private:
        raise InputError("--detach needs a cluster that stays: give --address")
    catalogue = Catalogue(settings.serve.models)
    bases = [served.policy for served in catalogue.models().values() if served.name == served.base]
    room = session.room_for_replicas(bases)
    try:
        address = _start(session, catalogue, room)
        _tell(session, catalogue, address)
        if detach:
            report.say("it stays when this command has ended; the same command changes it")
            return
        report.say("Ctrl-C ends it")
        _watch(session, catalogue)
    except BaseException as error:
        if not session.private:  # whose Ray ends anyway
            serve.delete(APPLICATION)
        if not isinstance(error, KeyboardInterrupt):
            raise
        report.say("no longer served")


def _start(session: Session, catalogue: Catalogue, room: Placement) -> str:
    """The address, once all replicas are there."""
    chosen, report = session.settings.serve, session.report
    if session.private:
        _check_free(chosen.host, chosen.port)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": chosen.host, "port": chosen.port},
    )
    app = build(session.settings, catalogue, room)
    bases = ", ".join(catalogue.bases())
    report.say(f"engines: starting {chosen.min_replicas} on {bases} (up to two minutes) ...")
    began = told = time.monotonic()
    try:
        serve.run_many(
            [serve.RunTarget(app, name=APPLICATION)], wait_for_applications_running=False
        )
    except RayServeException as error:
        raise ResourceError(f"Ray Serve does not take the app: {_line(str(error))}") from None
    while (found := _status()).status != ApplicationStatus.RUNNING:
        now = time.monotonic()
        failed = found.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
        if failed or now - began > session.settings.rollout.start_timeout_s:
            raise ResourceError(
                f"the engines did not start in {now - began:.0f} s: {_reason(found)} (more is in "
                "Ray's logs; if memory is short, lower rollout.kv_cache_gb or max_model_len)"
            )
        if now - told > _TELL_S:
            told = now
            report.say(f"engines: {now - began:.0f} s so far")
        time.sleep(_LOOK_S / 4)
    report.say(f"engines: ready after {time.monotonic() - began:.0f} s")
    options = serve.context._get_global_client().http_config  # of who started Ray Serve first
    host = "127.0.0.1" if options.host in _EVERYWHERE else options.host
    return f"http://{host}:{options.port}{options.root_path}/v1"


def _tell(session: Session, catalogue: Catalogue, address: str) -> None:
    report, host = session.report, session.settings.serve.host
    guarded = bool(os.environ.get(API_KEY))
    report.say(f"serving at {address} ({'for' if guarded else 'without'} an API key)")
    if host not in _LOCAL and not guarded:
        report.say(f"warning: anyone who reaches {host} can use it; set {API_KEY} to ask for a key")
    report.say(f"models: {', '.join(catalogue.models())}")


def _watch(session: Session, catalogue: Catalogue) -> None:
    """Tells what changes, for ever."""
    known, told = set(catalogue.models()), ApplicationStatus.RUNNING
    while True:
        time.sleep(_LOOK_S)
        if came := [name for name in catalogue.models() if name not in known]:
            known.update(came)
            session.report.say(f"models: also {', '.join(came)}")
        found = _status()
        if found.status != told:
            told = found.status
            reason = "" if told == ApplicationStatus.RUNNING else f": {_reason(found)}"
            session.report.say(f"engines: {told.value.lower().replace('_', ' ')}{reason}")


def _status() -> ApplicationStatusOverview:
    return serve.status().applications[APPLICATION]


def _reason(found: ApplicationStatusOverview) -> str:
    """What Ray Serve says of a deployment that is not well: the last line of the error in it."""
    told = [each.message for each in found.deployments.values() if each.message]
    lines = [line for text in told or [found.message] for line in text.strip().splitlines()]
    return _line(lines[-1]) if lines else "no reason is known"


def _line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def _check_free(host: str, port: int) -> None:
    """Raises ResourceError where nothing can listen there: Ray Serve would go on trying."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            reason = error.strerror or error
            raise ResourceError(f"cannot listen at {host}:{port}: {reason}; give --port") from None
