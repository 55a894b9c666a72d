"""A witness: cosigns the heads of evidence logs that only ever grow."""
