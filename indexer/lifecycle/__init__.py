"""An index that lives: what makes a version out of others, and what keeps or destroys versions.

    add, remove, merge    new versions, through `succession`
    purge, rollback, gc   which versions there are, and which one is live
    archive, signing      a version as one file, and who vouches for it
    diff                  what two versions have and do not have in common

How scores and coverage follow is said in docs/lifecycle.md.
"""
