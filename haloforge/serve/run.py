"""Serving from the command line: the app is there for as long as the command, or stays."""

import socket
import sys
import time

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from haloforge.errors import InputError, ResourceError
from haloforge.report.quiet import loggers_to_files
from haloforge.serve.app import API_KEY, api_key, build
from haloforge.serve.catalogue import Catalogue
from haloforge.session import Session

APPLICATION = "haloforge"
_LOOK_S = 2.0
_TELL_S = 15.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::")


def run_app(session: Session, detach: bool = False) -> None:
    """Serves until Ctrl-C or SIGTERM; with `detach` it only starts, or changes, what a cluster
    serves. Raises InputError where that serves already and is not to be changed, ResourceError
    where it does not fit or does not start."""
    settings, report = session.settings, session.report
    loggers_to_files()  # of Ray Serve, which came with it
    if detach and session.private:
        raise InputError("--detach needs a cluster that stays: give --address")
    catalogue = Catalogue(settings.serve.models)
    app = build(settings, catalogue, session.room_for_replicas([*catalogue.bases().values()]))
    address, guarded = _listen(session), api_key() is not None
    before = _status()
    if before is not None and not detach:
        raise InputError(
            "the cluster serves already: --detach changes what it serves, `serve shutdown` ends it"
        )
    try:
        _start(session, app, catalogue)
        report.say(f"serving at {address} ({'for' if guarded else 'without'} an API key)")
        report.say(f"models: {', '.join(catalogue.models())}")
        if detach:
            report.say("it stays when this command has ended; the same command changes it")
            return
        report.say("Ctrl-C ends it")
        try:
            _watch(session, catalogue)
        except KeyboardInterrupt:
            report.say("no longer served")
    finally:
        # A private Ray ends anyway. What a cluster served before this command stays in any case.
        failed = sys.exc_info()[0] is not None
        if not session.private and before is None and (failed or not detach):
            serve.delete(APPLICATION)


def _listen(session: Session) -> str:
    """The address, at which Ray Serve listens. Raises ResourceError where it cannot, or where it
    listens elsewhere already."""
    chosen, report = session.settings.serve, session.report
    if session.private:
        _check_free(chosen.host, chosen.port)
    try:
        serve.start(
            proxy_location="HeadOnly", http_options={"host": chosen.host, "port": chosen.port}
        )
    except (RayServeException, RuntimeError, TimeoutError) as error:
        raise ResourceError(f"Ray Serve does not start: {_line(str(error))}") from error
    actual = serve.context._get_global_client().http_config
    if (actual.host, actual.port) != (chosen.host, chosen.port):
        raise ResourceError(
            f"Ray Serve of this cluster listens at {actual.host}:{actual.port} already: give "
            f"--host {actual.host} --port {actual.port}, or end it with `serve shutdown`"
        )
    if chosen.host not in _LOCAL and api_key() is None:
        told = f"anyone who reaches {chosen.host} can use it; set {API_KEY} to ask for a key"
        report.say(f"warning: {told}")
    host = "127.0.0.1" if chosen.host in _EVERYWHERE else chosen.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{chosen.port}/v1" + ("" if session.private else " of the cluster's head")


def _start(session: Session, app: serve.Application, catalogue: Catalogue) -> None:
    """Returns when all replicas are there."""
    chosen, report = session.settings.serve, session.report
    bases = ", ".join(catalogue.bases())
    report.say(f"engines: starting {chosen.min_replicas} on {bases} (up to two minutes) ...")
    began = told = time.monotonic()
    try:
        serve.run_many(
            [serve.RunTarget(app, name=APPLICATION)], wait_for_applications_running=False
        )
    except RayServeException as error:
        raise ResourceError(f"Ray Serve does not take the app: {_line(str(error))}") from None
    while (found := _there()).status != ApplicationStatus.RUNNING:
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


def _watch(session: Session, catalogue: Catalogue) -> None:
    """Tells what changes, for ever."""
    known, faults = set(catalogue.models()), dict(catalogue.faults)
    told = ApplicationStatus.RUNNING
    while True:
        time.sleep(_LOOK_S)
        if came := [name for name in catalogue.models() if name not in known]:
            known.update(came)
            session.report.say(f"models: also {', '.join(came)}")
        for name, why in catalogue.faults.items():
            if faults.get(name) != why:
                session.report.say(f"models: not {name}: {why}")
        faults = dict(catalogue.faults)
        found = _there()
        if found.status != told:
            told = found.status
            reason = "" if told == ApplicationStatus.RUNNING else f": {_reason(found)}"
            session.report.say(f"engines: {told.value.lower().replace('_', ' ')}{reason}")


def _status() -> ApplicationStatusOverview | None:
    return serve.status().applications.get(APPLICATION)


def _there() -> ApplicationStatusOverview:
    found = _status()
    if found is None:
        raise ResourceError("the cluster serves it no longer: somebody else has ended it")
    return found


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
