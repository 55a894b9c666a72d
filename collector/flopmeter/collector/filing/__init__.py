"""Drafts of what is filed, made from the books: one document per kind, shown as JSON, Markdown and HTML."""
