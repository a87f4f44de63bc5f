"""`python -m snippets`: list, run, study, record and check the site's pages."""

import os

# Before NumPy or torch is imported: one thread gives the same sums on every machine.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from snippets.site.cli import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
