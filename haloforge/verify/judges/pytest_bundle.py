"""pytest as one file for the tests' box: the modules it needs, compiled by the Python there."""

import importlib.util
import io
import zipfile
from dataclasses import replace
from pathlib import Path

from haloforge.errors import InfraError
from haloforge.verify.judges.judgement import last_words
from haloforge.verify.limits import compile_limits
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import PYTHON

PACKAGES = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
# Of pygments' hundreds of lexers, the two that pytest imports.
LEXERS = ("__init__", "_mapping", "diff", "python")
SCRIPT = """
import importlib.util, marshal, sys, zipfile
header = importlib.util.MAGIC_NUMBER + bytes(12)
with zipfile.ZipFile("sources.zip") as sources, zipfile.ZipFile("pytest.zip", "w") as bundle:
    for name in sources.namelist():
        code = compile(sources.read(name), name, "exec", dont_inherit=True)
        bundle.writestr(name + "c", header + marshal.dumps(code))
sys.stdout.buffer.write(open("pytest.zip", "rb").read())
"""
WALL_S = 60.0


_made: list[bytes] = []


def pytest_bundle(sandbox: Sandbox, settings: VerifySettings) -> bytes:
    """A zip to put on `sys.path`. Made once a process, some seconds. Raises InfraError."""
    if not _made:
        limits = replace(compile_limits(settings), wall_s=WALL_S)
        result = sandbox.run((*PYTHON, "-c", SCRIPT), {"sources.zip": _sources()}, b"", limits)
        if not result.clean:
            raise InfraError(f"compiling pytest {last_words(result)}")
        _made.append(result.stdout)
    return _made[0]


def _sources() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as bundle:
        for package in PACKAGES:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                raise InfraError(f"the judge 'pytest' needs the package {package}")
            origin = Path(spec.origin)
            is_package = origin.stem == "__init__"
            site = origin.parents[is_package]
            for path in sorted(origin.parent.rglob("*.py")) if is_package else [origin]:
                if path.parent.name != "lexers" or path.stem in LEXERS:
                    bundle.write(path, path.relative_to(site))
    return file.getvalue()
