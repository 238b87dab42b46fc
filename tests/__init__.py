"""Tests of slip-relay, and the bench they share (`tests/harness`)."""
