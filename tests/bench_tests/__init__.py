"""Tests of the bench itself: a harness that lies is worse than none."""
