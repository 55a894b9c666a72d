"""Answers of the HTTP API, made from the store by a process of its own."""
