"""How an agent is let in: joining, its certificates and their renewal."""
