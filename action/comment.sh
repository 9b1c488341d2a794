#!/usr/bin/env bash
# Comments on the pull request; a comment of an earlier push is replaced. Failing to is a warning: workflows of
# forks may not comment.
#   MARKDOWN            file with the comment
#   CONFIG              experiment file, which tells the comments of several experiments apart
#   PULL_REQUEST        number of the pull request
#   GITHUB_REPOSITORY   owner/name
#   GH_TOKEN            read by gh
set -euo pipefail

export MARKER="<!-- dspylab check: ${CONFIG:-the only experiment} -->"
body="$MARKDOWN.body"
{ echo "$MARKER" && cat "$MARKDOWN"; } > "$body"

say() {
  local comments="repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" earlier
  earlier="$(gh api --paginate "$comments" --jq \
    '.[] | select(.user.type == "Bot" and (.body | startswith(env.MARKER))) | .id')" || return
  # The first, if there are several.
  earlier="${earlier%%$'\n'*}"
  if [ -n "$earlier" ]; then
    gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$earlier" --field "body=@$body"
  else
    gh api --silent --method POST "$comments" --field "body=@$body"
  fi
}

say || echo "::warning::could not comment on the pull request: it needs permissions: pull-requests: write"
