"""Where the head-end keeps things: one interface, each backend beside it."""
