"""How answers are judged: metrics, intervals and tests, and which run stands for a system."""
