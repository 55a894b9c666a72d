"""Sources of readings, behind one Protocol (base.py)."""
