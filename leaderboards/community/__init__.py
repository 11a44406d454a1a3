"""Results that others measured with this suite and sent as pull requests; README.md describes the files here.

`submission` makes one and checks one, `community` checks the folder and reads it for tables.
"""
