"""The same core under a virtual clock: real scheduler and fusion, recorded acceptance, latencies from a profile."""
