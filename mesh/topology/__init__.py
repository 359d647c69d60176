"""The whole view: what the DCC knows of the mesh, the ways through it, and what is broken."""
