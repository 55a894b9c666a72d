"""Delivery: what is in the outbox reaches people and programs, at least once, and delays nobody."""
