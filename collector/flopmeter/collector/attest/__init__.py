"""Attestations: signed statements about a run for one recipient."""
