"""Usage into signed records, kept on disk until the collector has them."""
