"""The `flopmeter` command: assembles the parts that are installed, imports them on demand."""
