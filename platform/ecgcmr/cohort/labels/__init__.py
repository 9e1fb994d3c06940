"""Tables of diagnoses and measurements as labels, one value per person or recording."""
