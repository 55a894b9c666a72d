"""Records in: verified, decided, written in one transaction."""
