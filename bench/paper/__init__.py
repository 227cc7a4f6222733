"""The paper's comparison: every strategy on the real mesh, with real acceptance, at the paper's hardware's speed."""
