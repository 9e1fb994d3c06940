"""How answers are evaluated: metrics, intervals and tests, and which run stands for a system."""
