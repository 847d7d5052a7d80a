"""Parquet files of a run, one for each frame, for DuckDB, Polars, Spark and others that read tables."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nndiag.errors import RunError
from nndiag.frames import FRAMES
from nndiag.plain import as_utf8
from nndiag.run import Run


def to_parquet(run: Run, folder: str | Path) -> list[Path]:
    """Write every recorded frame in long form to `folder`/NAME.parquet, and give back the files.

    The columns are those of `Run.tidy`: step, epoch, statistic, layer (or parameter, …) and value. Names of layers are values
    and never columns: their dots, quotes and capitals would need other quoting in every engine, and two that differ in case
    only would be one column to some. The file's metadata holds that of the run, as JSON under "nndiag". A run is written in
    parts, without having all of it in memory. Raises RunError without pyarrow, or where `folder` cannot be written.
    """
    parquet = pyarrow().parquet
    folder, files = Path(folder), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FRAMES:
            if len(run.tables.get(name, ())):
                files.append(folder / f"{name}.parquet")
                _write(parquet, run, name, files[-1])
    except OSError as fault:
        raise RunError(f"cannot write to {folder}: {fault.strerror or fault}") from fault
    return files


def pyarrow() -> Any:
    """The package, with its Parquet part. Raises RunError where it is not installed."""
    try:
        return import_module("pyarrow.parquet") and import_module("pyarrow")
    except ImportError as fault:
        raise RunError(
            "Parquet files need pyarrow: pip install '.[parquet]' beside nndiag's pyproject.toml, or pip install pyarrow"
        ) from fault


def _write(parquet: Any, run: Run, name: str, path: Path) -> None:
    described = {"nndiag": json.dumps(run.meta.to_dict())}
    parts = run.tidied(name)
    first = _arrow(next(parts))
    words = [column for column in first.column_names if column not in ("step", "epoch", "value")]
    schema = first.schema.with_metadata(described)
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=words) as file:
        file.write_table(first)
        for part in parts:
            file.write_table(_arrow(part))


def _arrow(part: pd.DataFrame) -> Any:
    return pyarrow().table({column: _column(part[column]) for column in part})


def _column(values: pd.Series[Any]) -> Any:
    """Numbers as they are, missing ones null; names as text that is valid UTF-8 whatever they hold."""
    arrow = pyarrow()
    if isinstance(values.dtype, pd.CategoricalDtype):
        names = list(map(as_utf8, values.cat.categories))
        return arrow.array(names, arrow.string()).take(arrow.array(values.cat.codes.to_numpy(np.int32)))
    return arrow.array(values)
