"""The programme that a meter runs: kept, applied at its time, rolled back."""
