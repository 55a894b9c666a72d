"""What runs will come to: projections, plans, and warnings before a line is met."""
