"""Questions answered from the books, for people and as documents."""
