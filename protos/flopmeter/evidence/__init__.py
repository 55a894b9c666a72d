"""An auditor's kit: bytes in, raise out. Imports only the standard library and cryptography."""
