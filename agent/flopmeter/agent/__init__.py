"""The node agent: reads, attributes, seals, ships."""
