"""A node of the mesh with what stands above its routing: probes, reports, packets of any length."""
