"""CoSine mesh."""
