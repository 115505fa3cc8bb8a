"""Checkpoints of a training run: whole or not there, on a disk or in object storage.

Ray Train's own list of checkpoints is one file that it rewrites in place: torn by a kill, it costs
the run. Here each checkpoint says for itself whether it is whole, and its manifest comes last.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from haloforge.errors import InputError, ResourceError
from haloforge.store.storage import check_address

_MANIFEST, _STATE = "manifest.json", "state.safetensors"
_SPARE = 2**26  # bytes of a disk that a checkpoint leaves free


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` optimizer steps are done, and what validations have shown.

    `best_loss` is the lowest validation loss so far, of `best_step`; `worse` validations in a row
    since were no better.
    """

    step: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    worse: int = 0

    def after(self, step: int, loss: float) -> "Position":
        """The position with the validation loss of `step` taken in."""
        if self.best_loss is None or loss < self.best_loss:
            return Position(step, step, loss)
        return Position(step, self.best_step, self.best_loss, self.worse + 1)


class Checkpoint(NamedTuple):
    """A whole checkpoint. `history` holds the metrics of all steps up to its own."""

    position: Position
    tensors: dict[str, Tensor]
    history: list[dict[str, Any]]


class Checkpoints:
    """The checkpoints of the run with the digest `run` in `place`, an absolute path or a URI.

    Every worker may read them, rank 0 alone writes. A checkpoint that is torn (cut off, changed, or
    without a manifest) is passed over for the one before it; one that cannot be read just now, as
    the storage does not answer, raises OSError. Raises InputError for a place that is none.
    """

    def __init__(self, place: str, run: str, keep: int) -> None:
        check_address(place)
        try:
            self._fs, folder = FileSystem.from_uri(place)
            self._root = f"{folder.rstrip('/')}/{run}"
        except Exception as error:  # pyarrow raises many kinds
            raise InputError(f"train.checkpoints={place}: {error}") from None
        self._keep = keep

    def save(
        self, position: Position, tensors: Mapping[str, Tensor], history: list[dict[str, Any]]
    ) -> None:
        """Write a checkpoint, then delete those that are neither among the newest nor the best.

        Raises ResourceError where it would not fit the disk, before anything is written.
        """
        data = save(dict(tensors))
        self._check_space(len(data))
        folder = self._folder(position.step)
        self._delete(folder)
        self._fs.create_dir(folder, recursive=True)
        self._write(f"{folder}/{_STATE}", data)
        manifest = {
            "position": asdict(position),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "history": history,
        }
        self._write(f"{folder}/{_MANIFEST}.part", json.dumps(manifest).encode())
        self._fs.move(f"{folder}/{_MANIFEST}.part", f"{folder}/{_MANIFEST}")
        steps = self.steps()
        # One of a later step is torn, or the run would stand there.
        newest = [step for step in steps if step <= position.step][-self._keep :]
        for step in set(steps) - {*newest, position.best_step}:
            self._delete(self._folder(step))

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, and so is the best one that it names."""
        for step in reversed(self.steps()):
            found = self.read(step)
            if found is not None and found.position.best_step in (None, step):
                return found
            if found is not None and self.read(found.position.best_step or 0) is not None:
                return found
        return None

    def read(self, step: int) -> Checkpoint | None:
        """The checkpoint of `step`, None where it is torn."""
        folder = self._folder(step)
        try:
            manifest = json.loads(self._read(f"{folder}/{_MANIFEST}"))
            data = self._read(f"{folder}/{_STATE}")
            if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
                return None
            return Checkpoint(Position(**manifest["position"]), load(data), manifest["history"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def steps(self) -> list[int]:
        """The steps of all checkpoints, torn ones too, in order."""
        return sorted(step for step in self._found())

    def clear(self) -> None:
        """Delete them all, and their folder."""
        for step in self.steps():
            self._delete(self._folder(step))
        if self._fs.get_file_info(self._root).type == FileType.Directory:
            self._fs.delete_dir(self._root)

    def _found(self) -> Iterator[int]:
        listing = self._fs.get_file_info(FileSelector(self._root, allow_not_found=True))
        for entry in listing:
            word, _, number = entry.base_name.partition("_")
            if entry.type == FileType.Directory and word == "step" and number.isdigit():
                yield int(number)

    def _folder(self, step: int) -> str:
        return f"{self._root}/step_{step:08d}"

    def _check_space(self, size: int) -> None:
        if not isinstance(self._fs, LocalFileSystem):
            return
        self._fs.create_dir(self._root, recursive=True)
        free = shutil.disk_usage(self._root).free
        if free < size + _SPARE:
            raise ResourceError(
                f"a checkpoint of {size / 2**20:.0f} MiB does not fit {self._root}: "
                f"{free / 2**20:.0f} MiB are free; free some, or name another place with "
                "train.checkpoints"
            )

    def _delete(self, folder: str) -> None:
        if self._fs.get_file_info(folder).type == FileType.Directory:
            # First the manifest, so that what a kill leaves behind is no checkpoint.
            if self._fs.get_file_info(f"{folder}/{_MANIFEST}").type == FileType.File:
                self._fs.delete_file(f"{folder}/{_MANIFEST}")
            self._fs.delete_dir(folder)

    def _write(self, path: str, data: bytes) -> None:
        with self._fs.open_output_stream(path) as file:
            file.write(data)

    def _read(self, path: str) -> bytes:
        with self._fs.open_input_stream(path) as file:
            return bytes(file.read())
