"""Networks, their heads and losses; every module trains alone and under ``torch.func.vmap``."""
