"""Readings into usage: intervals, what a count is worth, windows."""
