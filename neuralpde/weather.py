"""Weather on the sphere: records of any store or grid, what a forecast is scored by, and what it must beat.

    from neuralpde import weather

    record = weather.open_weather("era5.zarr", [weather.Variable("geopotential", 500)])
    train, test = record.split("2020-01-01", inputs=3)
    climatology = weather.climatology_of(train)
    windows = weather.Windows(test, inputs=3, leads=40)
    print(weather.score(weather.Persistence(), windows, climatology).rmse)

A forecast of yours is a `Forecast`: frames and valid times in, the frames at all lead times out, as fields (batch, ..., n, c) on
the nodes of `record.place.mesh`, whose poles are welded.
"""

from neuralpde.climatology import (
    Climatology,
    DailyClimatology,
    MeanClimatology,
    SeasonalClimatology,
    climatology_of,
)
from neuralpde.weather_forecasts import ClimatologyForecast, Forecast, Persistence, score
from neuralpde.weather_metrics import Scores, acc, bias, rmse
from neuralpde.weather_place import MeshNodes
from neuralpde.weather_record import Variable, WeatherError, WeatherRecord, regular_times
from neuralpde.weather_samples import era5_ensemble, era5_uk
from neuralpde.weather_scaling import Scaling
from neuralpde.weather_spectra import zonal_spectrum
from neuralpde.weather_store import open_weather
from neuralpde.weather_synthetic import SyntheticWeather
from neuralpde.weather_windows import Batch, Windows
from neuralpde.weather_writing import verify_weather, write_weather

__all__ = [
    "Batch", "Climatology", "ClimatologyForecast", "DailyClimatology", "Forecast", "MeanClimatology", "MeshNodes",
    "Persistence", "Scaling", "Scores", "SeasonalClimatology", "SyntheticWeather", "Variable", "WeatherError",
    "WeatherRecord", "Windows", "acc", "bias", "climatology_of", "era5_ensemble", "era5_uk", "open_weather",
    "regular_times", "rmse", "score", "verify_weather", "write_weather", "zonal_spectrum",
]  # fmt: skip
