"""Many nodes: routing, topology and the simulator will stand here. Nothing is in it yet."""
