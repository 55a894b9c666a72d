"""Who held a GPU."""
