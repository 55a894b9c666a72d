"""The collector: ingests, totals, rules, events, log."""
