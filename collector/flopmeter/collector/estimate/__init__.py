"""Totals by formula: from hardware and time, or from the model's shape. Pure but for reading files."""
