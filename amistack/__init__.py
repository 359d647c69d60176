"""A layered Advanced Metering Infrastructure protocol stack; no head-end and no meter in it."""
