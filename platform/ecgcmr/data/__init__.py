"""Rows of a cohort as batches on a device, in an order that a seed fixes."""
