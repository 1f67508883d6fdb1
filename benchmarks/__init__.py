"""Measurements, run by hand or by `make bench`: they print tables and assert nothing about time."""
