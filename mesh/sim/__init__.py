"""Real node machines by the thousand: one thread, one virtual clock, one seed."""
