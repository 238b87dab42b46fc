"""Tests of the whole renderer through the real pool: hostile letters, endurance, the corpus on paper."""
