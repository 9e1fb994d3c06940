"""What a finished run is used for: answers, embeddings, maps, weights in other formats."""
