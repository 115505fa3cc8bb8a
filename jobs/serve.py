"""Serving as a Ray job, from the project's folder:

ray job submit --working-dir . -- python jobs/serve.py --model MODEL
"""

from haloforge.cli.stages import run_stage

if __name__ == "__main__":
    run_stage("serve")
