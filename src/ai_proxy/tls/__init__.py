"""TLS: certificates of one's own, of a local authority or of a public one, and their change while in use."""
