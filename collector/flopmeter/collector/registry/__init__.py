"""The run registry: what people declare, assign, tag and link, as appended entries; and what follows from them."""
