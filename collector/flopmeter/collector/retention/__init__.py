"""What must be kept, until when and why: duties, dates that people say, and legal holds."""
