"""Data sets and data modules per modality, generators, checked downloads, and the small trained models of the zoo."""
