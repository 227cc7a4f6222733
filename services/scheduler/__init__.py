"""The scheduler: owns the loop of every request. Takes them from Redis, sends committed tokens to gateways."""
