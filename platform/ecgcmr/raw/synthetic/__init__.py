"""Synthetic subjects: one latent heart seen by an ECG and by cardiac MR."""
