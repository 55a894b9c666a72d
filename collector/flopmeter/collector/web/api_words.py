"""What may be asked of the HTTP port itself."""

#: Of `flopmeter export`, and what each is to a browser.
EXPORTS = ("usage", "events", "deadlines", "runs")
FORMATS = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}
#: Of `flopmeter attest create`; a test compares them.
PROFILES = ("aiOffice", "nationalAuthority", "auditor", "downstream")
