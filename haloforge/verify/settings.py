"""Settings of the verifier: toolchain, number of actors, limits of one box."""

from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict, Field, field_validator

from haloforge.errors import InputError
from haloforge.verify.toolchains import AUTO, toolchain_names


class VerifySettings(BaseModel):
    """How samples are judged. A problem's own `limits` take the place of the run limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verifier: str = AUTO
    """A toolchain's name, or `auto`: by the problem's language, then by the fence's tag."""
    actors: int | None = Field(None, gt=0)
    """Verifier actors; None lets the caller fill the CPUs it has."""
    compile_wall_s: float = Field(10, gt=0)
    compile_memory_mb: int = Field(2048, gt=0)
    run_wall_s: float = Field(5, gt=0)
    run_memory_mb: int = Field(512, gt=0)
    processes: int = Field(32, gt=0)
    """Threads of a run; threads and processes of a compilation."""
    output_kb: int = Field(1024, gt=0)
    """Most that a program may print in one run."""
    file_mb: int = Field(64, gt=0)
    """Size of the box's tmpfs, its only writable place, and of the largest file in it."""
    cache: bool = True
    """Use what was judged before of the same program, tests and limits, on this machine's disk."""
    unsafe_no_sandbox: bool = False
    """Run model-written code with resource limits alone: it can read and write what you can."""

    @field_validator("verifier")
    @classmethod
    def _known(cls, name: str) -> str:
        known = [AUTO, *toolchain_names()]
        if name not in known:
            near = get_close_matches(name, known, 1, cutoff=0)[0]
            raise InputError(
                f"unknown verifier '{name}'; did you mean '{near}'? Known: {', '.join(known)}"
            )
        return name
