#!/usr/bin/env bash
# Judges the results and writes what is to be said about them. Ends well also if a check fails: the verdict
# comes after the comment.
#   CONFIG               experiment file; empty: the only one
#   RUNNER_TEMP          folder for files
#   GITHUB_OUTPUT        takes passed, code, junit and markdown
#   GITHUB_STEP_SUMMARY  takes the Markdown
set -euo pipefail

folder="$(mktemp -d "$RUNNER_TEMP/dspylab-XXXXXX")"
junit="$folder/check.xml" verdict="$folder/check.md" report="$folder/report.md" markdown="$folder/comment.md"

code=0
dspylab check ${CONFIG:+--config "$CONFIG"} --junit "$junit" --markdown "$verdict" || code=$?
if [ ! -f "$verdict" ]; then
  echo "### dspylab check could not judge the results (exit code $code)" > "$verdict"
fi
dspylab report ${CONFIG:+--config "$CONFIG"} --format md --output "$report" > /dev/null ||
  echo "::warning::there is no report"

# GitHub takes comments of up to 65,536 characters.
cp "$verdict" "$markdown"
if [ -f "$report" ]; then
  if [ "$(cat "$verdict" "$report" | wc -c)" -lt 60000 ]; then
    { echo && cat "$report"; } >> "$markdown"
  else
    { echo && echo "The report is too long for a comment."; } >> "$markdown"
  fi
fi

cat "$markdown" >> "$GITHUB_STEP_SUMMARY"
{
  echo "code=$code"
  echo "passed=$([ "$code" = 0 ] && echo true || echo false)"
  echo "junit=$junit"
  echo "markdown=$markdown"
} >> "$GITHUB_OUTPUT"
