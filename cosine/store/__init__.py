"""What the mesh keeps in Redis: admitted requests, their records, the registry of peers. Nobody else knows redis."""
