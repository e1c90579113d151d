"""Conditional diffusion in three ideas, three files: noise, denoise, sample."""
