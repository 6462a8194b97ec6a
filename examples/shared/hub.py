"""Data sets of the Hugging Face hub, for people with a network; or a local folder of parquet, JSON or CSV files."""

from __future__ import annotations

from typing import Any

from shared.ending import refuse


def rows(name: str, split: str, *columns: str) -> Any:
    """One split of the data set `name`: an id, `id:configuration` or a folder; without `columns`, the script ends."""
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError:
        refuse("--hub needs the package datasets: pip install datasets")
    disable_progress_bars()
    path, _, configuration = name.partition(":")
    try:
        data = load_dataset(path, configuration or None, split=split)
    except Exception as error:  # no network, no such id, no such split: of many classes
        refuse(f"--hub {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    if missing := [column for column in columns if column not in data.column_names]:
        refuse(f"--hub {name} has no column {', '.join(missing)}; it has {', '.join(data.column_names)}")
    return data
