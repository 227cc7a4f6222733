"""The five services: thin shells around cosine. They never import one another."""
