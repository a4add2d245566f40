"""What the machine has, and who uses it."""
