"""What `ecgcmr` can be told to do, by what it works on; `cli` is the door."""
