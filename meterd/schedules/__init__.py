"""What a meter sends by itself, and when."""
