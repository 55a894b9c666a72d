"""Generated protobuf messages, version 1. Never edited; `make proto` writes them."""
