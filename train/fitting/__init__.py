"""From a configuration to trained heads."""
