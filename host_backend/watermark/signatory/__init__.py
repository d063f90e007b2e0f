"""Signatory's watermark files: their layouts, and its folder while a host has the marks."""
