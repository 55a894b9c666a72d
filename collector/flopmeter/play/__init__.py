"""Agent and collector put together in one process: replay and demo. The only package that may import both."""
