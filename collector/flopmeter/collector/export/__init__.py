"""Usage, events, deadlines and runs as files for other programs (docs/exports.md)."""
