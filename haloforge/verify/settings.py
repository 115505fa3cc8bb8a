"""Settings of the verifier: toolchain, number of actors, limits of one box."""

from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from haloforge.errors import InputError
from haloforge.schema import Problem
from haloforge.store.run import Identity, identity_of
from haloforge.verify.own_sources import OwnSource, find_own, installed
from haloforge.verify.toolchains import AUTO, select, toolchain_names

# How the work is shared out, which no verdict depends on.
FLEET = {"actors", "min_actors", "max_actors", "resource"}


class VerifySettings(BaseModel):
    """How samples are judged. A problem's own `limits` take the place of the run limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verifier: str = AUTO
    """A toolchain's name, or `auto`: by the problem's language, then by the fence's tag. Or a
    verifier of your own (own.py): `path.py:Class`, an entry point, `cmd:./check.sh {file}`."""
    actors: int | None = Field(None, gt=0)
    """Verifier actors at all times; None lets their number follow the work, within the next two."""
    min_actors: int | None = Field(None, gt=0)
    """None is 1."""
    max_actors: int | None = Field(None, gt=0)
    """None is one a CPU, of the nodes that have `resource` where it is given."""
    resource: str | None = None
    """A custom Ray resource: verifiers go only where `ray start --resources='{"NAME": 1}'` was."""
    compile_wall_s: float = Field(10, gt=0)
    compile_memory_mb: int = Field(2048, gt=0)
    """Of all processes of a compilation together."""
    run_wall_s: float = Field(5, gt=0)
    run_cpu_s: float | None = Field(None, gt=0)
    """CPU time of all its threads together; None leaves that to the wall clock."""
    run_memory_mb: int = Field(512, gt=0)
    processes: int = Field(32, gt=0)
    """Threads of a run; threads and processes of a compilation."""
    output_kb: int = Field(1024, gt=0)
    """Most that a program may print in one run."""
    file_mb: int = Field(64, gt=0)
    """Size of the box's tmpfs, its only writable place, and of the largest file in it."""
    files: int | None = Field(None, gt=0)
    """Files and folders in it; None is 256 for each MiB."""
    cache: bool = True
    """Use what was judged before of the same program, tests and limits, on this machine's disk."""
    raw: bool = False
    """Also judge each completion as it stands, with nothing extracted: `raw_outcome`."""
    unsafe_no_sandbox: bool = False
    """Run model-written code with resource limits alone: it can read and write what you can."""

    @field_validator("verifier")
    @classmethod
    def _known(cls, name: str) -> str:
        toolchains = [AUTO, *toolchain_names()]
        if name in toolchains or find_own(name):
            return name
        known = [*toolchains, *installed()]
        near = get_close_matches(name, known, 1, cutoff=0)[0]
        raise InputError(
            f"unknown verifier '{name}'; did you mean '{near}'? Known: {', '.join(known)}, "
            "path.py:Class, 'cmd:COMMAND {file}'"
        )

    @model_validator(mode="after")
    def _fleet(self) -> "VerifySettings":
        if self.actors and (self.min_actors or self.max_actors):
            raise InputError("give verify.actors, or verify.min_actors and verify.max_actors")
        if self.max_actors and (self.min_actors or 1) > self.max_actors:
            raise InputError("verify.min_actors is more than verify.max_actors")
        return self

    def own(self) -> OwnSource | None:
        """The user's own verifier, where `verifier` names one."""
        return None if self.verifier in (AUTO, *toolchain_names()) else find_own(self.verifier)

    def tests(self, problem: Problem) -> bool:
        """Whether more than compiling is judged of answers to `problem`."""
        if self.own() is not None:
            return True
        toolchain = select(self.verifier, problem.language, None)
        return problem.judge != "compile" and (toolchain is None or bool(toolchain.run))

    def runs(self, problem: Problem) -> bool:
        """Whether answers to `problem` are run and their verdicts say so; of one's own verifier
        that is not known."""
        return self.own() is None and self.tests(problem)

    def judging(self) -> Identity:
        """What decides a verdict, for the identity of a run."""
        own = self.own()
        told = identity_of(self, {*FLEET, "cache"})
        return {**told, "verifier": own.name} if own else told
