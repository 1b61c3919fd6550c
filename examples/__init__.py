"""Example traffic: a builder of exact captures, and a sample capture made with it."""
