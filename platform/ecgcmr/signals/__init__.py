"""What a signal is: ECG and CMR settled and cleaned, views of them, what is measured and doubted in them."""
