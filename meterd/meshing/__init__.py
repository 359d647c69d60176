"""A meter without a way of its own: its frames go to neighbours, and a collector is among them."""
