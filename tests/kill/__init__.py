"""Processes killed at enumerated steps, and what is left of the record afterwards."""
