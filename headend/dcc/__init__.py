"""The DCC (Data Center Concentrator): the head-end's side of every collector and of the mesh."""
