"""Scripts that run in boxes: tests in one, the solution they test in another, joined by two pipes.

Standard library only, for any Python from 3.9 on. A sandbox's spawner has them ready, so that a box
of theirs need not load them; none of them holds anything of a problem until it is run.
"""
