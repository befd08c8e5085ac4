"""Readers of files of text, a module for each kind of file. Free of torch."""
