"""The command line: each command is a file here, and a call of the library.

Importing this package imports no TensorFlow; `run` of a command does.
"""
