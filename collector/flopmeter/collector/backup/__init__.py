"""A copy of the books that is one state of them, made while the collector runs, and checked before it has its name."""
