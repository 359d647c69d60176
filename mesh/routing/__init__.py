"""One node's view of the mesh: neighbours, its place in the tree, and forwarding."""
