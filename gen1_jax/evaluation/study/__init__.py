"""A study of preferences: which of two edits people choose, `gen1 study`.

edits ──make──► DIR/page/ (index.html, clips of meaningless names) ──serve, or any web server──► raters
                DIR/key.json (who made what)                         DIR/answers/ ──results──► shares, intervals
"""
