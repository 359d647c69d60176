"""Many nodes: packets, sealed frames, routing over them, the whole view of it, and a simulator."""
