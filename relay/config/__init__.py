"""The configuration: `settings` says what there is, `load` reads it and finds every mistake."""
