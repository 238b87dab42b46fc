"""Parts by themselves; no other process but what a test starts."""
