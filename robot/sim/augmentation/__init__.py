"""New demonstrations from old ones: segments move with the objects that they belong to, and replay checks the result.

From Mandlekar et al. 2023, "MimicGen: A data generation system for scalable robot learning using human
demonstrations", and Corrado et al. 2024, "Guided data augmentation for offline reinforcement learning and imitation
learning" (GuDA).
"""
