"""The test bed: one small target and five smaller drafters, trained from what every Python 3.11 installation has.

`python -m testbed` trains and ships them into `testbed/models/`, `python -m testbed.evaluate` measures them,
`python -m testbed.inflate` turns one into a larger twin that writes the same text at a larger model's cost.
It knows nothing of the mesh: what it ships are ordinary Hugging Face folders.
"""
