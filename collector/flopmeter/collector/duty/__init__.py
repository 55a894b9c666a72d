"""What a person owes an answer to: how grave events are, who answered them, and the deadlines they start."""
