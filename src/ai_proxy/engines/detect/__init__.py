"""Detects the engines that run on their own."""
