"""Meters from the registry to the street and back."""
