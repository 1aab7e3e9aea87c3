"""Time series data: named sets with their splits, CSV files, windows, and the data module."""

from .catalog import DATASETS, data_root, dataset_names, load_dataset
from .collection import ForecastingData, rolling_windows
from .module import ForecastingDataModule
from .tables import TableSeries, read_csv, series_from_frame

__all__ = [
    "DATASETS",
    "ForecastingData",
    "ForecastingDataModule",
    "TableSeries",
    "data_root",
    "dataset_names",
    "load_dataset",
    "read_csv",
    "rolling_windows",
    "series_from_frame",
]
