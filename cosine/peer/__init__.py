"""What peers are made of: settings of model holders, membership in the registry, links to neighbours."""
