"""What the DNS says."""
