"""The search of hyper-parameters: which trials to try next, given what became of the earlier ones."""
