"""The meter daemon: records energy, and reports it over the secured stack."""
