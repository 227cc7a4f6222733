"""The verifier: the target model. It decides which tokens are committed."""
