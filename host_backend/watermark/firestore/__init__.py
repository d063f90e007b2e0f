"""Marks in Firestore, in Signatory's documents: several hosts can share them."""
