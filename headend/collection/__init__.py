"""Getting data from meters: on demand now; schedules and recovery grow here."""
