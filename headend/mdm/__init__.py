"""What the head-end makes of stored readings."""
