"""Temperature forecasts for five cities: a composed application with one model per city."""
