"""Thin verbs: parse, one pipeline call, print. Each loads only what it uses."""
