"""Networks on the acquired grid: tensors in, tensors out, (B, C, I, J, K) with the coarse axis last."""
