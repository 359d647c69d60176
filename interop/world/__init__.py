"""The full-system world: the real head-end and real meters on one thread and a virtual clock."""
