"""Shipped configurations, one YAML file per task and data set; see `fourfold configs`."""
