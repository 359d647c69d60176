"""The head-end server: octets to stored records, and wishes to answered commands."""
