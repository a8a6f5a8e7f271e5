"""Anybody's edits of real footage, scored beside their sources: `gen1 evaluate --videos`, and what is shown in a study.

table, folders ──listing──► rows ──pairs──► frames of both, one size ──scores──► a file a clip ──results──► report
"""
