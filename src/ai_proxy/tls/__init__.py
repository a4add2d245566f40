"""TLS: the user's own certificates, a local authority's or a public one's, replaced while in use."""
