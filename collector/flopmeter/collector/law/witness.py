"""What the writer notes a second time, so that one row that is gone or changed shows (check/noted_check.py).

By which entries, rules and regimes runs were judged since when follows from no record. Each such row has a second one in
`noted`, of the same commit. Whoever changes both is seen only by who holds an older copy, until the evidence log.
"""

#: Up to which entry runs were judged from that position on.
ENTRIES = "entries"
#: The first 60 bits of the digest of the identity rules in force from that position on.
RULES = "identity-rules"
#: How many regimes runs were judged by from that position on.
JUDGED = "judged-by"
SECOND_ROWS = frozenset({ENTRIES, RULES, JUDGED})
_HEX = 15  # digits of a digest that fit 63 bits


def rules_number(digest: str) -> int:
    """A SHA-256 in hex as `noted` holds it."""
    return int(digest[:_HEX], 16)
