"""The record of a run: what it was made of, and what happened; kept as manifest.json."""

from __future__ import annotations

import hashlib
import json
import os
import typing
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pplebm.data import Dataset, Scaling, names, scaling_from_json
from pplebm.data.scaling import Scalings
from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.runs import files
from pplebm.runs.config import Settings

FORMAT = 1  # of manifest.json


class PageEntry(NamedTuple):
    """A model or an algorithm: where its page is kept, and its hyperparameters."""

    name: str
    file: str | None  # copy of the page within the run folder; None for a callable
    sha256: str | None  # of that file
    home: str | None  # folder that the page came from
    hyper: dict[str, Any]  # by name, as `pplebm.gallery.hyper.flat` gives them
    paper: str
    deviations: list[str]
    scaling: str | None = None  # that a model page expects
    is_own: bool = False  # whether a model sees its data as given: a callable, or a plain file


class DataEntry(NamedTuple):
    """The data of a run."""

    name: str
    fingerprint: str
    event_shape: list[int]
    shapes: dict[str, list[int]]
    levels: dict[str, list[str]]
    columns: list[str] | None
    n_train: int
    n_held_out: int
    scaling: dict[str, Any]
    notes: list[str]


class RollBack(NamedTuple):
    """An update that was undone."""

    update: int
    to: int  # update whose state returned
    reason: str
    metrics: dict[str, str]


class Manifest(NamedTuple):
    """All that is known of a run besides its parameters and metrics."""

    settings: Settings
    model: PageEntry
    inference: PageEntry
    data: DataEntry
    versions: dict[str, str]
    example: tuple[str, str]  # file of a few rows of the data, and its SHA-256
    rollbacks: list[RollBack] = []
    first_update_seconds: float | None = None
    stopped_early: int | None = None  # update at which patience ended
    updates: int = 0  # done

    @property
    def scaling(self) -> Scaling | Scalings:
        """Scaling by which the data's units became the model's."""
        return scaling_from_json(self.data.scaling)

    def source(self, data: Any = None, data_dir: Any = None) -> tuple[Any, Any]:
        """Data and folder as given, otherwise as the run remembers them; None for data that cannot be found again."""
        known = self.settings.data_path or (self.data.name if self.data.name in names() else None)
        return (known if data is None else data), data_dir or self.settings.data_dir


def page_entry(folder: Path, kind: str, page: ModuleType, hyper: dict[str, Any], **more: Any) -> PageEntry:
    """The entry of a page, whose text is copied into the run folder."""
    assert page.__file__ is not None
    file, digest = files.keep_page(folder, kind, gallery.source(page))
    home, deviations = str(Path(page.__file__).resolve().parent), list(getattr(page, "DEVIATIONS", ()))
    paper = str(getattr(page, "PAPER", ""))
    return PageEntry(gallery.page_name(page), file, digest, home, hyper, paper, deviations, **more)


def data_entry(data: Dataset) -> DataEntry:
    """The entry of a data set."""
    return DataEntry(
        data.name, data.fingerprint, list(data.event_shape), {path: list(shape) for path, shape in data.shapes.items()},
        {name: list(levels) for name, levels in data.levels.items()},
        None if data.columns is None else list(data.columns),
        data.n_train, data.n_held_out, data.scaling.to_json(), list(data.notes),
    )  # fmt: skip


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, with its format and a checksum of its content."""
    content = {"format": FORMAT, **_plain(manifest)}
    files.write_json(folder / files.MANIFEST, content | {"sha256": _checksum(content)})


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json.

    Raises:
        PplebmError: if the folder holds no run, a damaged or edited one, or one of another version.
    """
    path = folder / files.MANIFEST
    if not os.path.isfile(path):
        raise PplebmError(f"'{folder}' holds no run: {path.name} is not there; give the folder that `fit --out` wrote.")
    content = files.read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise PplebmError(
            f"'{path}' is not the manifest of a run of this version (format {found}, this is {FORMAT}); open it with "
            f"the version of pplebm that wrote it, or fit again."
        )
    if content.pop("sha256", None) != _checksum(content):
        raise PplebmError(f"'{path}' was edited or is damaged: its checksum does not match; restore it, or fit again.")
    del content["format"]
    try:
        manifest: Manifest = _typed(Manifest, content)
    except (TypeError, AttributeError) as error:
        raise PplebmError(f"'{path}' is not the manifest of a run of this version ({error}); fit again.") from error
    return manifest._replace(example=tuple(manifest.example))  # type: ignore[arg-type]


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """NamedTuples as objects of JSON."""
    if hasattr(value, "_asdict"):
        return {name: _plain(v) for name, v in value._asdict().items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _typed(kind: Any, value: Any) -> Any:
    """Objects of JSON as the NamedTuples that an annotation names."""
    if hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _typed(hints.get(name), v) for name, v in value.items()})
    if typing.get_origin(kind) is list:
        return [_typed(typing.get_args(kind)[0], v) for v in value]
    return value
