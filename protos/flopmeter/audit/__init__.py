"""The check of an attestation, on flopmeter.evidence; imports nothing but that, the standard library, cryptography."""
