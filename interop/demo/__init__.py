"""A street of meters and a head-end, started as a user would, watched through the API."""
