#!/usr/bin/env bash
# Brings the results: from the DVC remote, and by executing what is missing if that is wanted.
#   CONFIG    experiment file; empty: the only one
#   PULL      true: bring from the DVC remote, if there is one
#   RUN       true: execute what is missing or stale
#   BASE_REF  branch that a pull request goes into; empty outside of one
set -euo pipefail

if [ -n "${BASE_REF:-}" ]; then
  # Its last commit alone is enough, so a shallow checkout is, too; one that is whole stays whole.
  depth="$([ "$(git rev-parse --is-shallow-repository)" = true ] && echo --depth=1 || true)"
  git fetch --quiet --no-tags ${depth:+"$depth"} origin "+refs/heads/$BASE_REF:refs/remotes/origin/$BASE_REF" ||
    echo "::warning::could not fetch the branch $BASE_REF"
fi

if [ "${PULL:-}" = true ] && [ -n "$(dvc remote list)" ]; then
  dvc pull --allow-missing || echo "::warning::dvc pull did not bring everything"
  if [ -n "${BASE_REF:-}" ] && git rev-parse --verify --quiet "origin/$BASE_REF" > /dev/null; then
    # DVC fetches for local branches only. One of that name may be checked out: then it is fetched already.
    git branch --force "$BASE_REF" "origin/$BASE_REF" 2> /dev/null || true
    dvc fetch --all-branches || echo "::warning::dvc fetch did not bring all results of $BASE_REF"
  fi
fi

if [ "${RUN:-}" = true ]; then
  # Runs that are incomplete fail the check, which says so.
  dspylab run --quiet ${CONFIG:+--config "$CONFIG"} || echo "::warning::dspylab run ended with exit code $?"
fi
