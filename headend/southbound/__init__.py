"""From octets to stored records, and from a wish to an answered request."""
