"""Documents on paper: sections of text, fields and tables, as HTML and as Markdown, and a file that is there whole."""
