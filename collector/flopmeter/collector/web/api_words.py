"""What may be asked of the HTTP port itself."""

#: Of `flopmeter export`, and what each is to a browser.
EXPORTS = ("usage", "events", "deadlines", "runs")
FORMATS = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}
#: Of `flopmeter runs report`: what each is called below a run, its flag, and what it is to a browser.
REPORTS = {
    "report.html": ("--html", "text/html; charset=utf-8"),
    "report.md": ("--markdown", "text/markdown; charset=utf-8"),
}
#: Of `flopmeter attest create`; a test compares them.
PROFILES = ("aiOffice", "nationalAuthority", "auditor", "downstream")
