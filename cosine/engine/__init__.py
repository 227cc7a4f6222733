"""Models: the toy, the transformers and the paced engine behind one protocol. The only place that knows torch."""
