"""How measured energy becomes intervals, tariff registers and demand, as a programme says."""
