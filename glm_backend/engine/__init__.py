"""Token ids in, token ids out. This room knows no text, no SQL and no Streamlit."""
