"""`interop simulate`: the real head-end, meters and collectors over a simulated radio."""
