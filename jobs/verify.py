"""Scoring as a Ray job, from the project's folder:

ray job submit --working-dir . -- python jobs/verify.py --input FILE --output FILE
"""

from haloforge.cli.stages import run_stage

if __name__ == "__main__":
    run_stage("verify")
