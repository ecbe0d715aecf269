"""From runs to conclusions: evaluation writes tidy tables, and tables give statistics, claims and figures.

`figures.draw_all(profile)` and `claims.write(profile)` are the two calls that most readers need.
"""
