"""The protocols, one benchmark a file."""
