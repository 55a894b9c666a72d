"""Who may speak: join tokens, certificates, revocation, and the API tokens of people."""
