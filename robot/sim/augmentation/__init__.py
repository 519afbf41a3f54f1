"""New demonstrations from old ones, by moving their segments with the objects (MimicGen, Mandlekar et al. 2023)."""
