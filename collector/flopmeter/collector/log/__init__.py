"""The evidence log: an RFC 6962 tree over all that the books rest on, its checkpoints and proofs."""
