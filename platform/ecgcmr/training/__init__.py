"""How a trial is trained: pre-training, packs of fine-tuned networks, trees."""
