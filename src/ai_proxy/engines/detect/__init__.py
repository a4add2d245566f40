"""Finds the engines that run by themselves: where they listen, what answers there, what that means."""
