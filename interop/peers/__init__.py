"""Foreign implementations that this stack talks to, how they are started, and our side of it."""
