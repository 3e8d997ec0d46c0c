"""The driver of the load tests: starts, checks, loads, measures, reports."""
