"""Looking at a node by hand: doctor, top, read, record."""
