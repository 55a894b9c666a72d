"""Regimes, verdicts, events."""
