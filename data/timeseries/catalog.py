"""Named data sets, with the splits their publications use.

The eight sets of the TSDiff paper come from GluonTS' repository, which needs the network once, or from files on disk:
`ROOT/NAME/` or `ROOT/NAME.tar.gz` holding `train/*.json` and `test/*.json`, one JSON object `{"start", "target"}` per
line, as GluonTS writes them. The two embedded sets come with pip (:mod:`.embedded`).
"""

import gzip
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import DataError
from .collection import Entry, ForecastingData, entry, first_period
from .embedded import pedestrian, vic_elec

__all__ = ["DATASETS", "RepositorySet", "data_root", "dataset_names", "load_dataset"]


@dataclass(frozen=True)
class RepositorySet:
    """A data set of GluonTS' repository.

    Args:
        freq: pandas frequency of its series.
        prediction_length: horizon of its published test windows.
        season: season of the seasonal naive forecast.
        licence: as far as its publisher states one.
    """

    freq: str
    prediction_length: int
    season: int
    licence: str = "see the GluonTS data set repository"


DATASETS: dict[str, RepositorySet] = {
    "solar_nips": RepositorySet("h", 24, 24),
    "electricity_nips": RepositorySet("h", 24, 24),
    "traffic_nips": RepositorySet("h", 24, 24),
    "exchange_rate_nips": RepositorySet("B", 30, 5),
    "m4_hourly": RepositorySet("h", 48, 24),
    "uber_tlc_hourly": RepositorySet("h", 24, 24),
    "kdd_cup_2018_without_missing": RepositorySet("h", 48, 24),
    "wiki2000_nips": RepositorySet("D", 30, 7),
}

_EMBEDDED = {"pedestrian": pedestrian, "vic_elec": vic_elec}


def dataset_names() -> list[str]:
    """Every name :func:`load_dataset` knows."""
    return [*_EMBEDDED, *DATASETS]


def data_root(root: str | Path | None = None) -> Path:
    """Where data sets live: `root`, else the environment variable FOURFOLD_DATA, else `~/.cache/fourfold`."""
    if root is not None:
        return Path(root).expanduser()
    return Path(os.environ.get("FOURFOLD_DATA") or Path.home() / ".cache" / "fourfold").expanduser()


def load_dataset(name: str, root: str | Path | None = None) -> ForecastingData:
    """Loads a data set with its split.

    Looks for `ROOT/NAME`, `ROOT/NAME.tar.gz` and the same below `ROOT/timeseries`, then asks GluonTS' repository,
    which keeps its download in `ROOT/timeseries`.

    Args:
        name: one of :func:`dataset_names`.
        root: folder of the data, default :func:`data_root`.

    Raises:
        DataError: for an unknown name, damaged files, or files that are neither here nor reachable.
    """
    if name in _EMBEDDED:
        return _EMBEDDED[name]()
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(dataset_names())}")
    facts = DATASETS[name]
    base = data_root(root)
    for folder in (base, base / "timeseries"):
        for path in (folder / name, folder / f"{name}.tar.gz"):
            if path.exists():
                train, test = _read_part(path, "train", facts), _read_part(path, "test", facts)
                return _assemble(name, facts, train, test)
    train, test = _download(name, facts, base / "timeseries")
    return _assemble(name, facts, train, test)


def _assemble(name: str, facts: RepositorySet, train: list[Entry], test: list[Entry]) -> ForecastingData:
    horizon = facts.prediction_length
    return ForecastingData(
        name=name,
        freq=facts.freq,
        prediction_length=horizon,
        season=facts.season,
        train=train,
        test=test,
        protocol=f"{name} (GluonTS split): {len(train)} training series, {len(test)} test entries, "
        f"the last {horizon} steps of each",
        licence=facts.licence,
    )


def _read_part(path: Path, part: str, facts: RepositorySet) -> list[Entry]:
    entries = []
    for source, text in _documents(path, part):
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                target = [np.nan if v in (None, "NaN") else v for v in record["target"]]
                item_id = str(record.get("item_id", len(entries)))
                start = first_period(record["start"], facts.freq)
                entries.append(entry(target, start, item_id, *_covariates(record)))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{source}, line {number}: not a series with `start` and `target` ({error})") from error
    if not entries:
        raise DataError(
            f"{path} holds no {part} series: expected {part}/*.json (or *.json.gz) with one JSON object per line"
        )
    return entries


def _covariates(record: Mapping[str, Any]) -> tuple[Any, Any]:
    """`feat_dynamic_real` and `feat_static_real` of a record, None where it has none."""
    dynamic, static = (
        None if record.get(name) is None else np.asarray(record[name], dtype=np.float64)
        for name in ("feat_dynamic_real", "feat_static_real")
    )
    return dynamic, static


def _documents(path: Path, part: str) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        for file in sorted((path / part).glob("*.json*")):
            raw = file.read_bytes()
            yield str(file), (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()
        return
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda m: m.name):
                inside = PurePosixPath(member.name)
                if member.isfile() and inside.parent.name == part and ".json" in inside.suffixes:
                    file = archive.extractfile(member)
                    assert file is not None
                    raw = file.read()
                    yield f"{path}:{member.name}", (gzip.decompress(raw) if inside.suffix == ".gz" else raw).decode()
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a tar archive ({error}): delete it and fetch it again") from error


def _download(name: str, facts: RepositorySet, folder: Path) -> tuple[list[Entry], list[Entry]]:
    from gluonts.dataset.repository import get_dataset

    try:
        found = get_dataset(name, path=folder)
        return _from_gluonts(found.train, facts), _from_gluonts(found.test, facts)
    except Exception as error:  # the repository's own recipes raise whatever urllib, pandas or json raise
        raise DataError(
            f"the data set {name!r} is neither at {folder / name} nor {folder / name}.tar.gz, and fetching it through "
            "GluonTS failed: "
            f"{type(error).__name__}: {str(error)[:200]}; put the files there, or point data.root at them"
        ) from error


def _from_gluonts(dataset: Any, facts: RepositorySet) -> list[Entry]:
    # The repository numbers rolling windows on: item_id is kept only if it is given.
    return [
        entry(
            record["target"],
            first_period(record["start"], facts.freq),
            str(record.get("item_id", index)),
            *_covariates(record),
        )
        for index, record in enumerate(dataset)
    ]
