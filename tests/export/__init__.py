"""Tests of seeds as programs, selftests and texts."""
